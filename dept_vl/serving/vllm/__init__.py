"""``dept-vl export --vllm`` and ``dept-vl proxy``: adapters on vLLM, which is given embeddings in the place of words.

`client` needs nothing of this package and is copied into every export; `export` writes one, `startup` reads it again
without torch, and `adapters`, `upstream`, `in_flight` and `app` are the proxy.
"""
