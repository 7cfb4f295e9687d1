"""What a run and a model did -> pages and pictures for people."""
