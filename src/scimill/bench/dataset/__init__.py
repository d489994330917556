"""A dataset of plain files: its plan, its ledger, and how it is written, verified and cloned."""
