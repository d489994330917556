"""The small potential: its definition, training an ensemble, and the ensemble as a calculator."""
