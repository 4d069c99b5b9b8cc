"""The generated parts of the documentation: each function gives Markdown made from the code."""
