"""The page that shows a live reconstruction in a browser."""
