"""Datasets of plain files: plan, ledger, writing, verifying and cloning."""
