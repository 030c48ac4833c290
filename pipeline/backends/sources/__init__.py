"""Ways in for data, a module each: files, archives, databases, object stores, Hugging Face datasets. ways.py is the port."""
