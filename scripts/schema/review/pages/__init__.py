"""How a review is shown: one content, as Markdown and HTML; and as data."""
