"""What it was worth: costs, curves and reports."""
