"""``dept-vl serve``: several adapters on one frozen backbone behind an HTTP interface like OpenAI's.

`startup` and `protocol` say what is refused, without torch; `batching` is the queue; `adapters`, `mixed` and `engine`
answer; `app` and `server` are HTTP.
"""
