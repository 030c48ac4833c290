"""What a set of texts is about, told from their vectors: topics, anomalies, a map, what to label next, what more data would buy.

Plain arrays in, plain values out: no file, no model and no store is touched here.
"""
