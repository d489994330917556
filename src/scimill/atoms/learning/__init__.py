"""The small potential: its definition, the training of an ensemble, and the ensemble as a calculator."""
