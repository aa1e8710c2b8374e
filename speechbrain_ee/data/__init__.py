"""What goes in: corpora, manifests, tokens and batches."""
