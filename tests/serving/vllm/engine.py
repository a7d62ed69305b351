"""What vLLM does with a chat request before its model runs, on transformers: a stub of its protocol for tests.

After its sources (``entrypoints/chat_utils``, ``renderers/hf.py``, ``renderers/embed_utils.py``, read in November 2026,
no line taken): a part of embeddings is a special token that the tokenizer is given, one for each part; texts and that
token go into the chat template as texts, an image as ``{"type": "image"}``; the rendered turn is cut into tokens
without special tokens of the tokenizer's own; the special token becomes as many as the tensor has rows, an image's
placeholder what the model's processor makes of it; then every other token has the embedding of the model's table.
"""

import base64
import copy
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from PIL import Image

from dept_vl.models.language.vision_language import VisionLanguageBackbone

SENTINEL = "<prompt_embeds>"


class Engine:
    """Reads chat requests as vLLM does, and answers them greedily with transformers."""

    def __init__(self, backbone, tokenizer, *, trusts_templates=True):
        self.backbone, self.trusts_templates = backbone, trusts_templates
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.add_special_tokens({"additional_special_tokens": [SENTINEL]})
        (self.sentinel_id,) = self.tokenizer.encode(SENTINEL, add_special_tokens=False)
        self.bodies, self.headers = [], []

    def read(self, body):
        """Returns a request's embeddings, (tokens, d_model), its ids, and where image tokens are."""
        if body.get("chat_template") is not None and not self.trusts_templates:
            raise ValueError("Chat template is passed with request, but --trust-request-chat-template is not set.")
        (message,) = body["messages"]
        parts, tensors, images = [], [], []
        for part in message["content"]:
            if part["type"] == "prompt_embeds":
                tensors.append(self._tensor(part["data"]))
                parts.append({"type": "text", "text": SENTINEL})
            elif part["type"] == "image_url":
                images.append(_picture(part["image_url"]["url"]))
                parts.append({"type": "image"})
            else:
                assert SENTINEL not in part["text"]
                parts.append({"type": "text", "text": part["text"]})
        rendered = self.tokenizer.apply_chat_template(
            [{"role": message["role"], "content": parts}], chat_template=body["chat_template"],
            add_generation_prompt=True, tokenize=True, return_dict=False,
        )  # fmt: skip
        return self._embedded(rendered, tensors, images)

    def _tensor(self, data):
        with torch.sparse.check_sparse_tensor_invariants():
            tensor = torch.load(io.BytesIO(base64.b64decode(data, validate=True)), weights_only=True)
        assert tensor.ndim == 2
        assert tensor.shape[1] == self.backbone.d_model
        return tensor.to(self.backbone.word_embeddings.dtype)

    def _embedded(self, rendered, tensors, images):
        rows, ids, is_image = [], [], []
        records = iter(self._records(images))
        left, tensors = list(rendered), list(tensors)
        image_ids = self._marker()
        while left:
            if left[0] == self.sentinel_id:
                rows.append(tensors.pop(0))
                ids += [self.sentinel_id] * len(rows[-1])
                is_image += [False] * len(rows[-1])
                left.pop(0)
            elif image_ids and left[: len(image_ids)] == image_ids:
                record = next(records)
                places = record.ids == self.backbone.image_token_id
                embeds = self.backbone.embed_tokens(record.ids.where(~places, 0)).clone()
                embeds[places] = record.tokens
                rows.append(embeds)
                ids += record.ids.tolist()
                is_image += places.tolist()
                left = left[len(image_ids) :]
            else:
                rows.append(self.backbone.embed_tokens(torch.tensor([left[0]])))
                ids.append(left.pop(0))
                is_image.append(False)
        assert not tensors
        assert next(records, None) is None
        return torch.cat(rows), ids, torch.tensor(is_image)

    def _marker(self):
        if not isinstance(self.backbone, VisionLanguageBackbone):
            return []
        return self.tokenizer.encode(self.backbone.template().image, add_special_tokens=False)

    def _records(self, images):
        if not images:
            return []
        from dept_vl.data.image_rows import ImageRows

        processing = self.backbone.image_processing()
        return [self.backbone.records(ImageRows(((processing(image),),)))[0][0] for image in images]

    @torch.no_grad()
    def answer(self, body):
        """Returns the JSON of an answer."""
        self.bodies.append(body)
        embeds, ids, _ = self.read(body)
        (eos,) = body["stop_token_ids"]
        made = self.backbone.model.generate(
            inputs_embeds=embeds[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
            max_new_tokens=body["max_tokens"], eos_token_id=eos, pad_token_id=eos, return_dict_in_generate=False,
        )[0].tolist()  # fmt: skip
        is_cut = eos not in made
        message = {"role": "assistant", "content": self.tokenizer.decode(made, skip_special_tokens=True)}
        return {
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if is_cut else "stop"}],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": len(made)},
        }


def _picture(url):
    kind, _, data = url.partition(";base64,")
    assert kind.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")


class EngineServer:
    """Serves an engine on a free port for a ``with`` block; `reply` may answer in its place."""

    def __init__(self, engine, reply=None):
        self.engine, self.reply, self.address = engine, reply, None
        self.name = "the-engines-name"

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def _send(self, status, body):
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                assert self.path == "/v1/models"
                self._send(200, {"object": "list", "data": [{"id": owner.name}, {"id": "a-lora"}]})

            def do_POST(self):
                assert self.path == "/v1/chat/completions"
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                owner.engine.headers.append(dict(self.headers))
                if owner.reply is not None:
                    return self._send(*owner.reply(body))
                try:
                    return self._send(200, owner.engine.answer(body))
                except ValueError as error:
                    return self._send(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
