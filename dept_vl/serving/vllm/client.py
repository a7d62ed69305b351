"""An exported adapter as a chat request to vLLM: soft prompt and text as embeddings, images as images.

This file needs torch, safetensors, transformers and nothing of dept_vl; a copy of it is in every export.

    python client.py "vqa: what color is the ball?" photo.jpg --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import mimetypes
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

SETTINGS_FILE, TENSORS_FILE = "export.json", "embeddings.safetensors"


class ExportedAdapter:
    """One adapter, from the folder that ``dept-vl export --vllm`` wrote.

    Attributes:
        settings: The content of ``export.json``.
        tokenizer: The backbone's.
    """

    def __init__(self, folder: str | Path, backbone: str | Path | None = None) -> None:
        """Opens the export, and of the backbone the tokenizer and the table of word embeddings, which stays on disk.

        Args:
            folder: The export.
            backbone: Folder of the frozen model; None for the recorded folder or hub id.
        """
        folder = Path(folder)
        self.settings: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text())
        tensors = load_file(folder / TENSORS_FILE)
        self._prompt, self._update = tensors["prompt"], tensors.get("update")
        recorded = self.settings["backbone"]
        where = Path(backbone) if backbone else find_backbone(recorded["name"], recorded["revision"])
        self.tokenizer = AutoTokenizer.from_pretrained(where)
        self._dtype: torch.dtype = getattr(torch, self.settings["dtype"])
        words = self.settings["word_embeddings"]
        self._table = read_table(where / words["file"], words["tensor"])
        self._scale: float | None = words["scale"]

    def source_ids(self, text: str) -> list[int]:
        """Returns the tokens of a source text.

        Args:
            text: As the task's template makes it; `settings` has an example.

        Raises:
            ValueError: It has more tokens than the adapter reads.
        """
        form = self.settings["text"]
        whole = f"{form['before']}{text}{form['behind']}"
        ids: list[int] = self.tokenizer(whole, add_special_tokens=form["adds_special_tokens"], verbose=False)[
            "input_ids"
        ]
        ids = ids[:-1] if form["ends_sources"] else ids
        if len(ids) > form["max_tokens"]:
            raise ValueError(f"the text has {len(ids)} tokens, and the adapter reads {form['max_tokens']}")
        return ids

    def embeddings(self, ids: Sequence[int], *, has_images: bool) -> list[Tensor]:
        """Returns what stands before the images and what stands behind them, or all of it where there are none.

        Args:
            ids: Of the source text.
            has_images: Whether there are images between prompt and text.

        Returns:
            Tensors (tokens, d_model), of the dtype of the run.
        """
        frame = self.settings["frame"]
        text = self._words(ids)
        if self._update is not None:
            begin = len(self._update) - len(ids) if self.settings["is_last_aligned"] else 0
            text = text + self._update[begin : begin + len(ids)]
        tail = self._words(frame["tail"])
        if not has_images:
            return [torch.cat([self._words(frame["text_head"]), self._prompt, text, tail]).to(self._dtype)]
        before = torch.cat([self._words(frame["head"]), self._prompt])
        return [part.to(self._dtype) for part in (before, torch.cat([self._words(frame["between"]), text, tail]))]

    def content(self, ids: Sequence[int], images: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Returns the parts of a user's message.

        Args:
            ids: Of the source text.
            images: As data URIs.
        """
        parts = [prompt_embeds(part) for part in self.embeddings(ids, has_images=bool(images)) if len(part)]
        pictures = [{"type": "image_url", "image_url": {"url": image}} for image in images]
        return [*parts[:-1], *pictures, parts[-1]]

    def body(
        self, ids: Sequence[int], images: Sequence[str] = (), *, model: str, max_tokens: int | None = None
    ) -> dict[str, Any]:
        """Returns the body of ``POST /v1/chat/completions`` for a greedy answer.

        Whatever the checkpoint's own sampling settings would change is said, since vLLM takes them by default.

        Args:
            ids: Of the source text.
            images: As data URIs.
            model: The engine's name of the backbone.
            max_tokens: Tokens of the answer at most; None for the run's own number.
        """
        settings = self.settings
        return {
            "model": model,
            "messages": [{"role": "user", "content": self.content(ids, images)}],
            "chat_template": settings["chat_template"],
            "max_tokens": min(max_tokens or settings["max_new_tokens"], settings["max_new_tokens"]),
            "stop_token_ids": [settings["eos_token_id"]],
            "temperature": 0,
            "repetition_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
        }

    def _words(self, ids: Sequence[int]) -> Tensor:
        """Returns the embeddings that the backbone reads for some tokens, (tokens, d_model) float32."""
        rows = self._table[torch.tensor(list(ids), dtype=torch.long)].to(self._dtype)
        if self._scale is not None:
            rows = rows * torch.tensor(self._scale).to(self._dtype)
        return rows.float()


def prompt_embeds(tensor: Tensor) -> dict[str, Any]:
    """Returns a content part of embeddings: base64 of what ``torch.save`` writes.

    Args:
        tensor: (tokens, d_model).
    """
    file = io.BytesIO()
    torch.save(tensor.clone(), file)  # a view would be saved with all that it is a view of
    return {"type": "prompt_embeds", "data": base64.b64encode(file.getvalue()).decode()}


def find_backbone(name: str, revision: str | None) -> Path:
    """Returns a model's folder, fetched from the hub where it is none: tokenizer, settings and weights alone."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.model"]))


def read_table(path: Path, tensor: str) -> Tensor:
    """Returns one tensor of a file, (vocabulary, d_model); the file is mapped: rows are read as they are used."""
    with safe_open(path, framework="pt") as file:
        table: Tensor = file.get_tensor(tensor)
    return table


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Returns the JSON that an address answers with.

    Args:
        url: Of vLLM, with ``/v1`` or without.
        path: Below ``/v1``.
        body: What is posted; None to get.

    Raises:
        OSError: It cannot be reached.
        ValueError: It refuses, with what it says.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc, timeout=600)
    content = None if body is None else json.dumps(body)
    base = parts.path.rstrip("/").removesuffix("/v1")
    connection.request(
        "GET" if body is None else "POST", f"{base}/v1/{path}", content, {"content-type": "application/json"}
    )
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        raise ValueError(f"{url} answered {response.status}: {text[:500]}")
    return json.loads(text)


def main(words: Sequence[str] | None = None) -> int:
    """Asks vLLM one question and prints its answer."""
    parser = argparse.ArgumentParser(description="Ask an exported adapter through vLLM.")
    parser.add_argument("text", help="the source text, as the task's template makes it")
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of vLLM; default: %(default)s")
    parser.add_argument("--model", help="vLLM's name of the backbone; default: the first that it lists")
    parser.add_argument("--backbone", type=Path, help="its folder, where it has moved")
    options = parser.parse_args(words)
    adapter = ExportedAdapter(Path(__file__).parent, options.backbone)
    if len(options.images) != (wanted := adapter.settings["images"]):
        parser.error(f"{len(options.images)} images are given, and the adapter takes {wanted}")
    model = options.model or ask(options.url, "models")["data"][0]["id"]
    images = [
        f"data:{mimetypes.guess_type(path)[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        for path in options.images
    ]
    body = adapter.body(adapter.source_ids(options.text), images, model=model)
    answer = ask(options.url, "chat/completions", body)["choices"][0]["message"]["content"]
    sys.stdout.write(f"{answer.strip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
