"""Reports of an evaluation: page, figures, and tables for the terminal, CSV and Markdown."""
