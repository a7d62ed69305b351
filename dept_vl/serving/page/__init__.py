"""``dept-vl ui``: a page in a browser to ask the adapters of a server, draw rows to ask about, and compare answers.

`split_rows` draws; `asking` asks the server's own queue; `views` makes HTML in which what data say is text; `layout` is
the page, of Gradio; `guard` is what stands before Gradio.
"""
