"""What serves a release: the model file that MLflow loads (released_model.py) and what it takes and gives (released_shape.py)."""
