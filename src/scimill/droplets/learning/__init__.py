"""The network that replaces the integration: its definition, training, score and export."""
