"""Wrong words are refused before torch is imported, with one message, and leave nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from data_prep.prepare import prepare
from dept_vl.settings.load import dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from tests.data_prep.text_rows import cola_folder

ROOT = Path(__file__).parents[2]
SECONDS = 1.0
"""Of CPU, imports of pydantic and pyarrow among them."""

IMPORT = "import-released"
CASES = [
    # names and values
    ("train --task vqaa", "unknown task 'vqaa'; did you mean 'vqa'"),
    ("train --data-dir x --optim.projecton_lr 1", "did you mean 'optim.projection_lr'"),
    ("train --data-dir x --data.batch_size many", "data.batch_size: "),
    ("train --data-dir x --seed", "expected one argument"),
    ("train --data.batch_size", "--data.batch_size: expected a value"),
    ("train --lr 0.1 --tuner.lr 0.2 --data-dir x", "tuner.lr: given twice"),
    ("train --task rte+rte", "'rte+rte' names the task 'rte' twice"),
    ("train --task rte+clola", "unknown task 'clola'; did you mean 'cola'"),
    ("train --task vqa+rte", "tasks with images (vqa) and without (rte)"),
    ("train --task a.yaml+b.yaml", "'a.yaml' in 'a.yaml+b.yaml' declares a task of your own"),
    ("train --task rte+cola --mix.temperature 0", "mix.temperature: should be greater than 0, got 0"),
    ("train --task rte+cola --mix.temperature -1", "mix.temperature: should be greater than 0, got -1"),
    ("train --task rte+cola --mix.max_rows 0", "mix.max_rows: should be greater than or equal to 1"),
    ("train --task rte+cola --mix.rates.mnli 2", "mix.rates.mnli: 'mnli' is no task of the run (rte, cola)"),
    ("train --task rte+cola --mix.rates.rte 2", "has no rate for cola; give every task one"),
    ("train --task rte+cola --mix.rates.rte 0 --mix.rates.cola 1", "mix.rates.rte: should be greater than 0, got 0"),
    (
        "train --task rte+cola --mix.rates.rte 1 --mix.rates.cola 1 --mix.temperature 2",
        "mix.temperature: has no effect beside mix.rates",
    ),
    ("train --task rte --mix.temperature 2", "mix.temperature: has no effect with one task, 'rte'"),
    ("train --task rte+cola --mix.batches both", "mix.batches: should be 'mixed', 'one-task' or 'shuffled'"),
    ("train --task rte+cola --loop.best_metric accuracy", "'accuracy' does not say of which task; give TASK/SCORE"),
    ("train --task rte+cola --loop.best_metric rte/acuracy", "unknown evaluator 'acuracy'; did you mean 'accuracy'"),
    ("train --task rte+vqa+rte", "names the task 'rte' twice"),
    ("train --task vqa+coco --data-dir x --data.protocol paper", "task 'vqa' has no protocol 'paper'"),
    ("train --task vqa+coco --data-dir x --decode.method score", "decode.method: 'score' needs a label set, and task"),
    ("train --task rte+cola --data-dir text", "text/rte.fixed/train.parquet: no such prepared split"),
    ("train --task rte+cola --rows r.csv", "data.rows: rows are of one task of your own"),
    ("prepare --task rte+cola --out x", "'rte+cola' names several tasks, and one is wanted here"),
    ("transfer --target rte+cola --sources mnli --data-dir x", "'rte+cola' names several tasks"),
    ("eval --predictions p.json --task rte+cola", "'rte+cola' names several tasks, and one is wanted here"),
    ("eval --checkpoint run --task vqa+coco", "was trained on 'vqa', asked for 'vqa+coco'"),
    ("train --task vqa --tuner lroa", "unknown tuner 'lroa'; did you mean 'lora'"),
    ("train --tuner dpt --data-dir x", "unknown tuner 'dpt'; did you mean 'dept'"),
    ("train --data-dir x --decode.method score", "decode.method: 'score' needs a label set"),
    ("train --data-dir x --data.protocol paper", "task 'vqa' has no protocol 'paper'"),
    (
        "train --data-dir x --lr 0.3y",
        "--lr (tuner.lr): should be a valid number, unable to parse string as a number, got '0.3y'",
    ),
    ("train --data-dir x --lr x", "--lr (tuner.lr): should be a number above 0 before the x, as in 0.3x, got 'x'"),
    ("train --tuner lora --lr 0.3x --data-dir x", "--lr (tuner.lr): should be a valid number"),
    (
        "train --data-dir x --optim.name prodigy --lowrank-lr 0.1",
        "--lowrank-lr (tuner.lowrank_lr): 'prodigy' finds the rates itself, and would not read it; leave it out, or",
    ),
    ("train --data-dir x --optim.name prodigy --optim.projection_lr 1", "--optim.projection_lr: 'prodigy' finds the"),
    (
        "train --data-dir x --optim.name schedule-free --optim.schedule linear",
        "--optim.schedule: 'schedule-free' has none; leave it out, or take another optim.name",
    ),
    ("train --seeds 0,1 --seed 3 --data-dir x", "seed: has no effect beside --seeds"),
    ("train --seeds 0,x --data-dir x", "expected numbers with commas between"),
    ("train --seeds 0,0 --data-dir x", "expected different numbers from 0 on"),
    ("info --task vqaa", "unknown task 'vqaa'"),
    ("info --config demo --tuner.rank many", "tuner.rank: "),
    ("eval --checkpoint run --metric cidre", "unknown evaluator 'cidre'; did you mean 'cider'"),
    (
        "eval --checkpoint run --metric loss",
        "'loss' is no score of predictions: training computes it at every evaluation",
    ),
    ("eval --checkpoint run --metric CIDRe", "unknown evaluator 'CIDRe'; did you mean 'cider'"),
    ("train --data-dir x --loop.best_metric exact_mtch", "loop.best_metric: unknown evaluator 'exact_mtch'; did you"),
    ("train --task nocaps --data-dir data", "task 'nocaps' has no training split; its predictions are scored by"),
    ("trian --data-dir x", "unknown command 'trian'; did you mean 'train'"),
    ("Train --data-dir x", "unknown command 'Train'; did you mean 'train'"),
    ("eval --checkpoint run --decode.method score", "decode.method: 'score' needs a label set"),
    ("eval --checkpoint run --task coco", "was trained on 'vqa', asked for 'coco'"),
    ("eval --checkpoint run --split tset", "invalid choice: 'tset'"),
    ("eval --checkpoint text-run --data.protocol paper", "was trained under 'fixed', asked for 'paper'"),
    ("eval --checkpoint run --config demo", "--config: a run has its own settings"),
    ("eval --predictions p.json --decode-agreement", "--decode-agreement: has no effect with"),
    ("eval --predictions p.json --decode.num_beams 3", "decode.num_beams: has no effect with --predictions"),
    ("eval --checkpoint run --lr 3", "--lr: `dept-vl eval` does not read this setting: it belongs to `dept-vl train`"),
    ("eval --checkpoint run --output-dir x", "the run's folder is --checkpoint"),
    ("eval --checkpoint run --optim.prompt_lr 3", "--optim.prompt_lr: `dept-vl eval` does not read"),
    ("ablate run --seed 3", "--seed: `dept-vl ablate` does not read"),
    ("ablate run --split tset", "invalid choice: 'tset'"),
    ("ablate run --output-dir x", "the run's folder is RUN"),
    ("ablate run --task coco", "was trained on 'vqa', asked for 'coco'"),
    ("ablate run --output no/x.json", "--output no/x.json: there is no folder no/"),
    ("ablate absent", "absent: no run here"),
    ("compare absent me/nothing", "absent: no such folder; name the folder of a scored run"),
    (
        "ablate nothere",
        "nothere: no run here (config.yaml is missing); train one with `dept-vl train`, or name its folder with RUN",
    ),
    ("ablate sweeping", "sweeping: holds a sweep; name one run of it with RUN: the best is sweeping/t"),
    ("ablate run --data-dir absent", "absent/vqa/val.parquet: no such prepared split"),
    ("compare run", "run: holds no test scores; make them with `dept-vl eval --checkpoint run`"),
    ("compare run --metric cidre", "unknown evaluator 'cidre'; did you mean 'cider'"),
    ("compare run --output no/x.json", "--output no/x.json: there is no folder no/"),
    ("compare", "the following arguments are required: RUN"),
    ("report --figure 7", "--figure 7: expected 3, 4, 5, 6"),
    ("report --figure 6 --out x.gif", "--out x.gif: a figure is written as .png, .svg, .pdf"),
    ("report --figure 3", "--figure 3: the paper prints no numbers of it"),
    ("report --figure 4 p.json", "p.json: not what a benchmark writes"),
    ("report --figure 6 absent", "absent: no such folder"),
    ("report --paper table1 --out no/x.md", "--out no/x.md: there is no folder no/"),
    ("report", "one of the arguments --paper --figure --html is required"),
    ("report --html x.html", "--html: name the folder of a run"),
    ("report run --html x.gif", "--html x.gif: a page is written as .html"),
    ("report run --html no/x.html", "--html no/x.html: there is no folder no/"),
    ("report run --html x.html --mixed", "--mixed: is for tables and figures, and has no effect with --html"),
    ("report absent --html x.html", "absent: no such folder"),
    ("report run --html x.html", "run: holds no test scores; make them with `dept-vl eval --checkpoint run`"),
    ("report --paper table1 --images x", "--images: is for a page, and has no effect without --html"),
    ("predict --checkpoint run --image x.jpg --seed 3", "--seed: `dept-vl predict` does not read"),
    ("info --config demo --data.batch_size 3", "--data.batch_size: `dept-vl info` does not read"),
    ("cache-features --data-dir x --model.dropout_rate 0.1", "--model.dropout_rate: `dept-vl cache-features` does not"),
    ("eval --predictions p.json --metric accurac", "unknown evaluator 'accurac'; did you mean 'accuracy'"),
    ("eval --task coco --predictions p.json", "needs --references"),
    ("eval --verify p.json --decode.num_beams 3", "decode.num_beams: has no effect with --verify"),
    ("predict --checkpoint run --image x.jpg --column x", "expected NAME=VALUE"),
    ("predict --checkpoint run --image x.jpg --column x=y", "takes no such column (it takes: question)"),
    ("predict --checkpoint run --image x.jpg", "needs a question; give --question TEXT"),
    ("predict --checkpoint run --question q", "needs an image, a folder of images or a JSONL file"),
    ("predict --checkpoint text-run --image x.jpg", "task 'cola' reads text alone"),
    ("predict --checkpoint text-run --column sentence=x --sheet x.png", "--sheet: draws images"),
    ("predict --checkpoint text-run --column sentence=x --beams -1", "--beams: must be at least 0"),
    ("predict --checkpoint run --questions q.json", "--questions: needs --images DIR"),
    ("predict --checkpoint run --image x.jpg --images taken", "--images: belongs to --questions"),
    ("predict --checkpoint run --questions q.json --images taken --input x", "leave --image and --input out"),
    ("predict --checkpoint text-run --questions q.json --images taken", "task 'cola' has no official questions"),
    (
        "predict --checkpoint run --image picture.png --question q --output o.json",
        'needs "question_id", a whole number',
    ),
    ("predict --checkpoint run --image picture.png --question q --output no/o.jsonl", "there is no folder no/"),
    ("prepare --task vqq --raw x --out y", "unknown task 'vqq'; did you mean 'vqa'"),
    ("prepare --task vqa --raw x --out y --data.dir z", "takes no settings"),
    ("prepare --task vqa --raw x --out y --protocol paper", "--protocol: task 'vqa' takes none"),
    ("prepare --task vqa --out y", "--raw: task 'vqa' needs the folder of its official files"),
    ("cache-features --task cola --data-dir x", "task: 'cola' has no images"),
    ("draw-scenes --out x --images 3", "--images: must be at least 10"),
    ("sweep --task cola --data-dir x", "--config: a sweep needs a file with a 'sweep' section"),
    ("sweep --config bad-sweep.yaml", "did you mean 'tuner.lowrank_lr'"),
    ("sweep --config two-metrics.yaml", "loop.best_metric: cannot be varied in a sweep; set it for all runs"),
    ("transfer --target superglue-cbb --sources mnli", "did you mean 'superglue-cb'"),
    ("transfer --target cola --sources mnly", "unknown task 'mnly'; did you mean 'mnli'"),
    ("transfer --target cola --sources cola --data-dir x", "'cola' is the target itself"),
    ("transfer --target cola --sources mnli --task rte", "has --target and --sources instead"),
    ("transfer --target cola --sources mnli --seeds 1,1 --data-dir x", "expected different numbers from 0 on"),
    ("report --paper tabel1", "unknown table 'tabel1'; did you mean 'table1'"),
    (f"{IMPORT} released --out y --task colla", "unknown task 'colla'; did you mean 'cola'"),
    ("tasks colla", "unknown task 'colla'; did you mean 'cola'"),
    ("push text-run adapter", "'adapter' is no name for the hub: expected USER/NAME"),
    ("push text-run me/a --licence mti", "licence: 'mti' is none of the hub's names; did you mean 'mit'"),
    ("push text-run me/a --model.backbone ./t5", "model.backbone: ./t5 is a folder of this machine"),
    ("push text-run me/a --seed 3", "--seed: `dept-vl push` does not read this setting"),
    ("push text-run me/a", "cannot push while HF_HUB_OFFLINE=1"),
    # files and folders that are not there, or hold something else
    ("train --config absent.yaml", "absent.yaml: cannot read"),
    ("train --config taken/notes.txt", "taken/notes.txt: "),
    ("train --resume --output-dir absent", "--resume: nothing has begun in absent; leave --resume out"),
    ("train --resume --output-dir run --data-dir x --seed 3", "seed: the run has 0, asked for 3"),
    ("train --data-dir absent", "absent/vqa/train.parquet: no such prepared split"),
    ("train --data-dir data --task cola --data.protocol paper", "there is cola.fixed: another protocol"),
    ("train --data-dir data", "no cached features of the encoder asked for (there is no finished store)"),
    ("train --data-dir data --data.feature_dir absent", "absent/index.json: no such file"),
    ("train --data-dir data --init-from absent", "absent: no adapter here"),
    ("train --seeds 0,1 --data-dir absent", "absent/vqa/train.parquet: no such prepared split"),
    ("info --config absent.yaml", "absent.yaml: cannot read"),
    ("info --config vqa/dpet", "no name that `dept-vl configs` lists; did you mean 'vqa/dept'"),
    ("train --resume --output-dir sweeping", "holds a sweep, which `dept-vl sweep --resume` goes on with"),
    ("train --data-dir x --output-dir sweeping", "sweeping is not empty and holds a sweep"),
    (
        "eval --checkpoint sweeping",
        "sweeping: holds a sweep; name one run of it with --checkpoint: the best is sweeping/t",
    ),
    ("eval --checkpoint seeding", "seeding: holds several seeds; name one run of it with --checkpoint: seeding/seed-0"),
    (
        "eval --checkpoint moved",
        "moved recorded the relative path 'gone', which is seen from the folder it was trained",
    ),
    (
        "train --data-dir x --init-from sweeping",
        "sweeping: holds a sweep; name one run of it with --init-from: the best",
    ),
    ("export-released seeding --out y", "seeding: holds several seeds; name one run of it with RUN: seeding/seed-0"),
    ("eval --checkpoint data-moved", "and nothing is there; if it moved, give --data-dir PATH"),
    ("train --resume --output-dir data-moved", "and nothing is there; if it moved, give --data-dir PATH"),
    (
        "eval --checkpoint encoder-moved",
        "recorded 'local-dir:/gone/clip', and nothing is there; if it moved, give --mo",
    ),
    ("eval --checkpoint here/moved", "perhaps "),
    ("eval --checkpoint text-moved", "model.backbone: text-moved recorded the relative path './t5'"),
    ("eval --checkpoint absent", "absent: no run here"),
    ("eval --checkpoint runs/absent", "runs/absent: no such folder here, and not in the hub's cache, while HF_HUB_OFF"),
    ("train --data-dir data --init-from runs/absent", "runs/absent: no such folder here, and not in the hub's cache"),
    ("push absent me/a", "absent: no run here"),
    ("push no-adapter me/a", "no-adapter: no adapter here"),
    ("push seeding me/a", "seeding: holds several seeds; name one run of it with RUN: seeding/seed-0"),
    ("eval --checkpoint taken", "taken: no run here"),
    ("eval --checkpoint no-adapter", "no-adapter: no adapter here"),
    ("eval --checkpoint run --data-dir absent", "absent/vqa/test.parquet: no such prepared split"),
    ("eval --predictions absent --questions absent --annotations absent", "absent: cannot be read"),
    ("eval --verify absent", "absent: cannot read the results"),
    ("eval --verify p.json", "p.json: not a results file that can be made again"),
    ("predict --checkpoint absent --image x.jpg", "absent: no run here"),
    ("predict --checkpoint no-adapter --image picture.png --question q", "no-adapter: no adapter here"),
    ("predict --checkpoint run --image absent.jpg --question q", "absent.jpg: no such image file"),
    ("predict --checkpoint run --image x.jpg --question q", "x.jpg: not an image"),
    ("predict --checkpoint run --image taken --question q", "taken: no image in this folder"),
    ("predict --checkpoint text-run --input absent.jsonl", "absent.jsonl: cannot be read"),
    ("predict --checkpoint text-run --input p.json", "p.json, line 1: expected an object of columns"),
    (
        "predict --checkpoint run --questions p.json --images taken",
        'p.json: expected an object with a list "questions"',
    ),
    ("prepare --task vqa --raw absent --out y", "absent: no such folder of raw files"),
    ("new-task --from absent", "absent: no such file or folder of rows"),
    ("new-task --from p.json --out run", "--out: run should end in .yaml"),
    ("prepare --task cola --raw absent --out y", "absent: no such folder of raw files"),
    ("prepare --task cola --raw taken --out y", "taken: task 'cola' needs train"),
    ("cache-features --task vqa --data-dir absent --model.clip.model demo", "no such prepared split"),
    ("cache-features --verify absent", "absent/index.json: no such file"),
    ("sweep --config absent.yaml", "absent.yaml: cannot read"),
    ("sweep --config sweep.yaml --data-dir absent", "absent/vqa/train.parquet: no such prepared split"),
    ("transfer --target cola --sources mnli --source-config absent.yaml", "absent.yaml: cannot read"),
    ("transfer --target cola --sources mnli --source-runs mnli=absent --data-dir x", "no adapter there"),
    ("transfer --target cola --sources mnli --data-dir data", "data/mnli.fixed/train.parquet: no such prepared split"),
    ("report --paper table1 absent", "absent: no such folder"),
    (f"{IMPORT} absent --out y", "absent: no released adapter here"),
    ("export-released absent --out y", "absent: no adapter here"),
    ("tasks cola --raw absent", "absent: no such folder of raw files"),
    ("tasks cola --data-dir absent", "no such prepared split"),
    # rows of one's own
    ("train --task mine --data-dir x", "unknown task 'mine' (known: "),
    ("train --task mine.yml --rows rows.csv", "mine.yml: cannot read the task: No such file"),
    (
        "train --task mine.yaml --output-dir new",
        "data.dir: not set; give --rows ROWS (in Python train=), or --data-dir",
    ),
    ("train --task mine.yaml --rows rows.csv --output-dir new", "rows.csv, line 7: id '4' is there twice"),
    ("train --task mine.yaml --rows absent.csv --output-dir new", "absent.csv: no such file or folder of rows"),
    ("train --task mine.yaml --rows rows.csv --images taken", "--images: task 'mine' reads text alone"),
    ("train --task mine.yaml --rows rows.csv --data-dir data", "data.rows: rows are prepared into the cache, and data"),
    ("train --task cola --rows rows.csv", "data.rows: task 'cola' has files of its own"),
    ("train --config demo --task vqa --rows rows.csv", "data.rows: task 'vqa' has files of its own"),
    (
        "eval --checkpoint rows-moved",
        "data.rows: rows-moved recorded '/gone/rows.csv', and nothing is there; if it moved",
    ),
    ("eval --checkpoint images-moved", "data.image_dir: images-moved recorded '/gone/images', and nothing is there"),
    # what a backbone cannot have
    ("train --task cola --tuner lst --data-dir x --model.backbone llama", "'lst' acts in an encoder, and the backbone"),
    ("train --task cola --tuner hyperdecoder --data-dir x --model.backbone gpt2", "'hyperdecoder' acts in an encoder"),
    ("train --task rte+cola --tuner hyperformer --data-dir x --model.backbone llama", "'hyperformer' acts in an enc"),
    ("train --task cola --tuner dept+hyperdecoder --data-dir x --model.backbone gpt2", "acts in an encoder, and the"),
    (
        "train --task cola --tuner lst --tuner.reduction 5 --data-dir x",
        "tuner.reduction: 5 does not divide every width",
    ),
    ("train --task vqa --tuner lst --tuner.decoder_layers [1,2]", "decoder has the blocks 0 to 1, and no 2"),
    (
        "train --task cola --tuner lora --tuner.sites [cross_attn.q] --data-dir x --model.backbone llama",
        "tuner.sites: this backbone has no 'cross_attn.q' (it has: ff.gate, ff.in, ff.out, self_attn.k, self_attn.o, ",
    ),
    (
        "train --task cola --tuner lora --tuner.sites [ff.gate] --data-dir x --model.backbone gpt2",
        "tuner.sites: this backbone has no 'ff.gate' (it has: ff.in, ff.out, self_attn.k, ",
    ),
    (
        "train --task cola --tuner dept+lora --tuner.parts.lora.sites [ff.gate] --data-dir x",
        "tuner.sites: this backbone has no 'ff.gate' (it has: cross_attn.k, ",
    ),
    (
        "train --task vqa --tuner adapterdrop --tuner.layers [12]",
        "tuner.layers: this backbone has no block 12; it has 3 in its encoder (0 to 2) and 2 in its decoder (0 to 1)",
    ),
    (
        "train --task vqa --tuner adapter --tuner.sites [cross_attn.o] --tuner.layers [2]",
        "tuner.sites: this backbone has no 'cross_attn.o' in block 2; its decoder and encoder are not equally deep",
    ),
    ("train --task vqa --tuner adapter --tuner.reduction 193", "193 leaves no width of a backbone that is 192 wide"),
    (
        "train --task cola --tuner attempt --tuner.text_maximum padded --data-dir x --model.backbone llama",
        "tuner.text_maximum: 'padded' is how the released code pads T5's text, and the backbone is decoder-only",
    ),
    ("train --task cola --data-dir x --tuner.num_virtual_tokens 33", "is not met exactly by num_virtual_tokens=33"),
    (
        "train --task cola --data-dir x --tuner dept+lora --tuner.parts.dept.rank 76",
        "tuner: a budget of 100 tokens x d_model 768 = 76,800 parameters is smaller than rank=76 alone",
    ),
    (
        "train --task cola --data-dir x --tuner prompt-tuning --model.backbone gpt2 --data.max_source_length 32",
        "a prompt of 100 and a text of 32 tokens leave no room for a target in the 64 positions of this gpt2 backbone",
    ),
    (
        "train --task cola --data-dir x --model.backbone gpt2 --model.visual_position_bias zero",
        "model.visual_position_bias: 'zero' is a rule for T5's relative position bias, and the backbone is decoder",
    ),
    (
        "train --task cola --data-dir x --model.backbone opt",
        "'opt' is of type 'opt', expected one of t5, gpt2, llama, qwen2, qwen3, gemma, gemma2, gemma3_text, smollm3",
    ),
    (
        "train --task cola --data-dir x --tuner prompt-tuning --model.backbone mistral --data.max_source_length 32",
        "a prompt of 100 and a text of 32 tokens leave no room for a target in the 64 positions of this mistral"
        " backbone (sliding_window; longer inputs are not supported)",
    ),
    (
        "train --task cola --data-dir x --tuner lora --model.backbone gemma3_text",
        "'gemma3_text' reads a text in both directions (use_bidirectional_attention in its config.json)",
    ),
    ("train --seeds 0,1 --task cola --tuner lst --data-dir x --model.backbone llama", "'lst' acts in an encoder"),
    ("train --seeds 0,1 --task cola --tuner hyperformer --data-dir x", "the run has one task; name several"),
    ("info --task cola --tuner lst --model.backbone llama", "'lst' acts in an encoder"),
    ("info --task vqa --tuner adapterdrop --tuner.layers [1,3,12]", "tuner.layers: this backbone has no block 3, 12;"),
    ("sweep --config sweep-backbones.yaml --task cola --data-dir x", "this backbone has no 'cross_attn.q'"),
    ("transfer --target cola --sources mnli --tuner lst --data-dir x --model.backbone gpt2", "'lst' acts in an enc"),
    (
        "transfer --target cola --sources mnli --source-config source.yaml --data-dir x",
        "tuner.sites: this backbone has no 'ff.gate'",
    ),
    # a source that the budget does not fit at 40 tokens takes the target's sizes, and is not refused for them
    (
        "transfer --target cola --sources mnli --source-config short.yaml --data-dir data",
        "mnli.fixed/train.parquet: no su",
    ),
    # folders that are taken
    ("train --data-dir x --output-dir taken", "taken is not empty and holds no run; choose another --output-dir"),
    ("train --data-dir x --output-dir run", "run is not empty; add --resume"),
    ("train --data-dir x --output-dir taken/notes.txt", "is a file; choose a folder"),
    ("train --seeds 0 --data-dir x --output-dir taken", "taken is not empty and holds no seeds"),
    ("train --seeds 0 --data-dir x --output-dir run", "run is not empty and holds a run and no seeds"),
    ("sweep --config sweep.yaml --data-dir x --output-dir sweeping", "add --resume to go on with the sweep"),
    ("prepare --task cola --raw taken --out data", "cola.fixed: the output folder is not empty"),
    ("draw-scenes --out taken", "taken: exists and is not an empty folder"),
    (
        "sweep --config sweep.yaml --data-dir x --output-dir taken",
        "taken is not empty and holds no sweep",
    ),
    ("transfer --target cola --sources mnli --data-dir x --output-dir taken", "taken is not empty and holds no t"),
    (f"{IMPORT} released --out taken --task cola", "taken is not empty"),
    ("export-released run --out taken", "taken is not an empty folder"),
]


def write_world(folder: Path, vqa_splits: Path) -> None:
    """Writes what the command lines name; nothing of it gets further than a first look."""
    shutil.copytree(vqa_splits, folder / "data" / "vqa")
    prepare(get_task("cola"), cola_folder(folder / "raw"), folder / "data", subset=True)
    Image.new("RGB", (2, 2)).save(folder / "picture.png")
    data = {"data.dir": str(folder / "data")}
    vqa, cola = load_config(None, data), load_config(None, {"task": "cola", **data})
    for name, config, has_adapter in (("run", vqa, True), ("text-run", cola, True), ("no-adapter", vqa, False)):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(dump_config(replace(config, output_dir=name)))
        for file in ("adapter_config.json", "adapter_model.safetensors") if has_adapter else ():
            (folder / name / file).touch()
    (folder / "mine.yaml").write_text('{name: mine, kind: text, template: "{q}", target: a, id: n}')
    (folder / "rows.csv").write_text("n,q,a\n1,u,y\n2,v,y\n3,w,y\n4,x,y\n5,y,y\n4,z,y\n")
    write_several(folder, vqa)
    write_relative(folder, cola)
    (folder / "released").mkdir()
    for file in ("adapter_config.json", "adapter_model.bin"):
        (folder / "released" / file).touch()
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("mine")
    (folder / "p.json").write_text("[]")
    (folder / "x.jpg").write_text("no image")
    space = "sweep: {space: {tuner.%s: [0.1, 0.2]}}\n"
    (folder / "sweep.yaml").write_text(space % "lr")
    backbones = "tuner: {name: lora, sites: [cross_attn.q]}\nsweep: {space: {model.backbone: [demo, llama]}}\n"
    (folder / "sweep-backbones.yaml").write_text(backbones)
    (folder / "source.yaml").write_text("tuner: {name: lora, sites: [ff.gate]}\n")
    (folder / "short.yaml").write_text("data: {max_source_length: 40}\n")
    write_configs(folder)
    (folder / "bad-sweep.yaml").write_text(space % "lowrnk_lr")
    (folder / "two-metrics.yaml").write_text("sweep: {space: {loop.best_metric: [loss, vqa_accuracy]}}\n")


def write_configs(folder: Path) -> None:
    """Writes the settings of models without anything beside them."""
    configs = {
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_positions": 64},
        "llama": {"hidden_size": 16, "num_hidden_layers": 2},
        "mistral": {"hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 512, "sliding_window": 64},
        "gemma3_text": {"hidden_size": 16, "num_hidden_layers": 2, "use_bidirectional_attention": True},
        "opt": {"hidden_size": 16},
    }
    for name, stored in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"model_type": name, **stored}))


def write_several(folder: Path, config: TrainConfig) -> None:
    """Writes a sweep that has ended and seeds."""
    for name, run in (("sweep", "sweeping/trial-0001"), ("seeds", "seeding/seed-0")):
        (folder / run).mkdir(parents=True)
        (folder / run / "config.yaml").write_text(dump_config(config))
        (folder / run).parent.joinpath(f"{name}.yaml").write_text("{}")
    (folder / "sweeping" / "sweep.json").write_text(json.dumps({"best": {"run": "sweeping/trial-0001"}}))


def write_relative(folder: Path, config: TrainConfig) -> None:
    """Writes runs whose paths lead nowhere: relative ones of another folder, and those of what has moved."""
    (folder / "here" / "gone").mkdir(parents=True)
    gone = replace(config, data=replace(config.data, dir="gone"))
    mine = {"task": str(folder / "mine.yaml"), "data.rows": "/gone/rows.csv", "model.backbone": "demo"}
    seen = {"name": "seen", "kind": "caption", "image": "i", "target": "t"}
    pictures = {"declaration": seen, "data.rows": str(folder / "rows.csv"), "data.image_dir": "/gone/images"}
    runs = {
        "rows-moved": load_config(None, mine),
        "images-moved": load_config(None, pictures),
        "moved": replace(gone, output_dir="elsewhere/moved"),
        "here/moved": replace(gone, output_dir="moved"),
        "data-moved": replace(config, data=replace(config.data, dir="/gone/data")),
        "encoder-moved": load_config(
            None, {"data.dir": str(folder / "data"), "model.image_encoder.model": "local-dir:/gone/clip"}
        ),
        "text-moved": replace(config, model=replace(config.model, backbone="./t5"), output_dir="elsewhere/text-moved"),
    }
    for name, run in runs.items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(dump_config(run))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, tiny_data) -> dict[str, dict]:
    """What came of every case, all of them in one process that has not imported torch."""
    folder = tmp_path_factory.mktemp("refusals")
    write_world(folder, tiny_data / "vqa")
    lines = [line for line, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.refusing", str(folder)],
        input=json.dumps([line.split() for line in lines]), capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(lines, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("line", "message"), CASES, ids=[line for line, _ in CASES])
def test_wrong_words_are_refused_at_once_with_one_message(outcomes, line, message):
    outcome = outcomes[line]
    assert outcome["imported"] is None
    assert outcome["code"] == 2
    assert message in outcome["printed"]
    assert outcome["printed"].count("error: ") == 1
    assert outcome["left"] == []
    assert outcome["seconds"] < SECONDS
