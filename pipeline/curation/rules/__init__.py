"""Rules across rows: each a pure function from columns of a snapshot to findings. Asking them in order is steps/curate.py's."""
