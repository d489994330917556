"""The network that replaces the integration: definition, training, score and export."""
