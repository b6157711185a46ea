import json
import logging
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from generation_helpers import noise as plain_noise
from generation_helpers import right_half as hole
from hub_server import COMMIT, hide_hub, hub_server
from PIL import Image
from tiny_models import make_tiny_pipeline, make_tiny_xl_pipeline

from cnnsvm.data.images import ImageError
from cnnsvm.generation.engines import EngineError, Task, get_engine
from cnnsvm.generation.engines.diffusion import DEFAULT_PROMPT, diffusion_engine
from cnnsvm.generation.engines.pretrained import DEFAULT_MODEL, parse_model


def noise(height=50, width=61, seed=0):
    return plain_noise(height, width, seed)


def distance(first, second):
    return np.abs(first.astype(int) - second)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def engine(folder):
    return get_engine(f"diffusion:{folder}?steps=2")


@pytest.fixture
def pipeline(engine):
    return engine.repaint.__self__.pipeline


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


# what it paints


def test_equals_the_pipeline_of_diffusers(folder, engine):
    from diffusers import StableDiffusionInpaintPipeline

    reference = StableDiffusionInpaintPipeline.from_pretrained(folder, safety_checker=None)
    reference.set_progress_bar_config(disable=True)
    image = noise(64, 64)
    expected = reference(
        DEFAULT_PROMPT,
        image=Image.fromarray(image),
        mask_image=Image.fromarray(np.where(hole(image), 255, 0).astype(np.uint8)),
        height=64,
        width=64,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert distance(engine(image, hole(image), 5), np.asarray(expected)).max() <= 1


def test_batch_equals_one_by_one(engine):
    images = [noise(50, 61, seed) for seed in range(4)]
    prompts = ["a cat", None, "", "a dog"]
    masks = [hole(images[0]), ~hole(images[0]), np.eye(50, 61, dtype=bool), hole(images[0])]
    tasks = [
        Task(image, mask, seed, prompt)
        for seed, (image, mask, prompt) in enumerate(zip(images, masks, prompts, strict=True))
    ]
    together = replace(engine, batch_size=4).repaint_all(tasks)
    for task, output in zip(tasks, together, strict=True):
        assert distance(engine(task.image, task.mask, task.seed, task.prompt), output).max() <= 1


def test_whole_output_comes_back_not_the_hole_alone(engine):
    image = noise()
    output = engine(image, hole(image))
    assert (output != image)[~hole(image)].any(axis=1).mean() > 0.9


@pytest.mark.parametrize("size", [(64, 64), (50, 61)])
def test_hole_hides_what_was_there(engine, size):
    """Also where the image is mirrored up to the stride."""
    image = noise(*size)
    mask = np.zeros(size, bool)
    mask[30:, 20:] = True
    other = image.copy()
    other[mask] = 255 - other[mask]
    np.testing.assert_array_equal(engine(image, mask), engine(other, mask))
    other = image.copy()
    other[~mask] = 255 - other[~mask]
    assert (engine(image, mask) != engine(other, mask)).any()
    assert (engine(image, mask) != engine(image, ~mask)).any()


# prompts


def test_prompt_of_the_task_outranks_the_default(engine):
    image = noise()
    default = engine(image, hole(image))
    np.testing.assert_array_equal(default, engine(image, hole(image), prompt=DEFAULT_PROMPT))
    for prompt in ("a dog", ""):
        assert distance(default, engine(image, hole(image), prompt=prompt)).mean() > 1
    assert engine.prompt == DEFAULT_PROMPT


def test_default_prompt_can_be_given_and_empty(folder):
    image = noise()
    spaced = get_engine(f"diffusion:{folder}?steps=2&prompt=a%20dog %26 cat")
    assert spaced.prompt == "a dog & cat"
    empty = diffusion_engine(str(folder), steps=2, prompt="")
    assert empty.prompt == ""
    assert distance(empty(image, hole(image)), spaced(image, hole(image))).mean() > 1


def test_negative_prompt_matters_and_is_recorded(folder, engine):
    image = noise()
    other = get_engine(f"diffusion:{folder}?steps=2&negative_prompt=cat")
    assert distance(other(image, hole(image)), engine(image, hole(image))).mean() > 1
    assert other.details["negative_prompt"] == "cat"
    assert "negative_prompt" not in engine.details
    with pytest.raises(EngineError, match="negative_prompt needs a guidance above 1, got 1"):
        diffusion_engine(str(folder), negative_prompt="cat", guidance=1.0)


def test_prompt_that_would_be_cut_off_is_a_bad_image_and_the_others_go_on(engine):
    image = noise()
    prompts = ["a cat", "x" * 10_000, "cat " * 75, "cat " * 76]
    tasks = [Task(image, hole(image), 0, prompt) for prompt in prompts]
    outputs = replace(engine, batch_size=4).repaint_all(tasks)
    bad = [isinstance(output, ImageError) for output in outputs]
    assert bad == [False, True, False, True]
    assert "10002 tokens long, and this model reads 77" in str(outputs[1])
    assert len(str(outputs[1])) < 300
    assert "78 tokens" in str(outputs[3])


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_default_prompt_that_would_be_cut_off_is_refused_at_once(folder, name):
    with pytest.raises(EngineError, match=r"302 tokens long.*77.*Shorten it"):
        diffusion_engine(str(folder), **{name: "cat " * 300})


# what can go wrong with an image


def test_image_that_the_safety_checker_withholds_is_no_fake(tmp_path, logged):
    strict = make_tiny_pipeline(tmp_path / "strict", safety_checker=True)
    engine = diffusion_engine(str(strict), steps=1, batch_size=2)
    tasks = [Task(noise(seed=seed), hole(noise())) for seed in range(2)]
    for output in engine.repaint_all(tasks):
        assert isinstance(output, ImageError)
        assert "safety checker withheld" in str(output)
    assert not logged  # the pipeline's own warning


@pytest.mark.parametrize(("value", "problem"), [(torch.nan, "not finite"), (-1.0, "black")])
def test_overflow_is_a_bad_image(engine, pipeline, monkeypatch, value, problem):
    decode = pipeline.vae.decode

    def broken(*args, **kwargs):
        return (torch.full_like(decode(*args, **kwargs)[0], value),)

    monkeypatch.setattr(pipeline.vae, "decode", broken)
    with pytest.raises(ImageError, match=f"{problem}.*precision='float32'"):
        engine(noise(), hole(noise()))


def test_batch_that_does_not_fit_is_halved(engine, pipeline, monkeypatch, caplog):
    forward, limit, sizes = pipeline.unet.forward, [4], []

    def short_of_memory(latents, *args, **kwargs):
        sizes.append(len(latents))
        if len(latents) > limit[0]:  # two an image, with and without the prompt
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", short_of_memory)
    tasks = [Task(noise(seed=seed), hole(noise()), seed) for seed in range(4)]
    with caplog.at_level(logging.WARNING):
        outputs = replace(engine, batch_size=4).repaint_all(tasks)
    assert sizes == [8, 4, 4, 4, 4]
    assert "4 images of 61x50 do not fit into the memory; trying 2" in caplog.text
    for task, output in zip(tasks, outputs, strict=True):
        assert distance(engine(task.image, task.mask, task.seed), output).max() <= 1
    limit[0] = 0
    with pytest.raises(ImageError, match=r"one image of 61x50 pixels.*device='cpu'"):
        engine(noise(), hole(noise()))


# what it says of itself


def test_details(folder, engine):
    assert engine.name == "diffusion:tiny"
    assert (engine.size, engine.batch_size, engine.uses_mask) == ((64, 64), 1, True)
    revision = engine.details["model_revision"]
    assert revision.startswith("sha256:")
    assert engine.details == {
        "model_id": "tiny",
        "model_revision": revision,
        "pipeline": "StableDiffusionInpaintPipeline",
        "unet_channels": "9",
        "scheduler": "DDIMScheduler",
        "steps": "2",
        "guidance": "7.5",
        "strength": "1",
        "precision": "float32",
    }
    assert str(folder.parent) not in repr(engine)


def test_revision_follows_the_content_wherever_it_lies(folder, engine, copy):
    other = get_engine(f"diffusion:{copy}?steps=2")
    assert other.details["model_revision"] == engine.details["model_revision"]
    (copy / "checkpoint.safetensors").write_bytes(b"beside the parts, so not loaded")
    again = get_engine(f"diffusion:{copy}?steps=2")
    assert again.details["model_revision"] == engine.details["model_revision"]
    make_tiny_pipeline(copy, seed=1)
    changed = get_engine(f"diffusion:{copy}?steps=2")
    assert changed.details["model_revision"] != engine.details["model_revision"]


@pytest.fixture
def logged():
    """Collect what the libraries log from warnings up."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    for module in (diffusers_logging, transformers_logging):
        module.add_handler(handler)
    yield records
    for module in (diffusers_logging, transformers_logging):
        module.remove_handler(handler)


def test_loading_and_painting_are_silent(folder, copy, capfd, caplog, logged):
    image = noise()
    get_engine(f"diffusion:{folder}?steps=2")(image, hole(image))
    assert capfd.readouterr() == ("", "")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    drop_a_weight(copy / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(EngineError):
        get_engine(f"diffusion:{copy}?steps=2")
    assert not logged  # what is wrong is said by the error, and once


def test_libraries_log_as_before_afterwards(folder):
    from diffusers.utils import logging as theirs

    theirs.set_verbosity_info()
    try:
        get_engine(f"diffusion:{folder}?steps=2")
        assert theirs.get_verbosity() == logging.INFO
        assert theirs.is_progress_bar_enabled()
    finally:
        theirs.set_verbosity_warning()


# other models


def test_model_that_does_not_see_the_mask_is_run_and_recorded(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        engine = get_engine(
            f"diffusion:{make_tiny_pipeline(tmp_path / 'four', channels=4)}?steps=3"
        )
    assert "four is no inpainting model" in caplog.text
    assert engine.details["unet_channels"] == "4"
    image = noise()
    assert (engine(image, hole(image)) != engine(image, ~hole(image))).any()


def test_model_of_other_channels_is_refused(tmp_path):
    five = make_tiny_pipeline(tmp_path / "five", channels=5)
    with pytest.raises(EngineError, match=r"9 input channels, or 4 .* got 5"):
        get_engine(f"diffusion:{five}")


def test_pndm_scheduler_starts_afresh_each_time(tmp_path):
    folder = make_tiny_pipeline(tmp_path / "pndm", scheduler="PNDMScheduler")
    engine = get_engine(f"diffusion:{folder}?steps=3")
    image = noise()
    first = engine(image, hole(image))
    np.testing.assert_array_equal(first, engine(image, hole(image)))
    assert engine.details["scheduler"] == "PNDMScheduler"


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of its scheduler
def test_xl_has_its_own_strength_and_no_watermark(tmp_path, monkeypatch):
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_inpaint as xl

    folder = make_tiny_xl_pipeline(tmp_path / "xl")
    monkeypatch.setattr(xl, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(xl, "StableDiffusionXLWatermarker", object, raising=False)
    engine = get_engine(f"diffusion:{folder}?steps=3")
    assert engine.details["strength"] == "0.9999"
    assert engine.details["pipeline"] == "StableDiffusionXLInpaintPipeline"
    assert engine.repaint.__self__.pipeline.watermark is None
    tasks = [Task(noise(seed=seed), hole(noise()), seed) for seed in range(3)]
    outputs = replace(engine, batch_size=3).repaint_all(tasks)
    for task, output in zip(tasks, outputs, strict=True):  # its scheduler adds noise in each step
        assert distance(engine(task.image, task.mask, task.seed), output).max() <= 1
    with pytest.raises(EngineError, match=r"steps=1 at strength=0.9999: .*must leave one"):
        get_engine(f"diffusion:{folder}?steps=1")


# folders that cannot be loaded


def index_without(folder, name):
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    del index[name]
    file.write_text(json.dumps(index))


def index_of(folder, name):
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": name}))


def only_bin(folder):
    for weights in folder.rglob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))


def truncate(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def drop_a_weight(weights):
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    name = sorted(state)[0]
    del state[name]
    save_file(state, weights, {"format": "pt"})


DAMAGE = {
    "no unet": (lambda f: shutil.rmtree(f / "unet"), "it has no unet"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "it has no tokenizer"),
    "no index": (lambda f: (f / "model_index.json").unlink(), "model_index.json cannot be read"),
    "broken index": (lambda f: (f / "model_index.json").write_text("{"), "cannot be read"),
    "unet not in the index": (lambda f: index_without(f, "unet"), "its index names no unet"),
    "no text encoder weights": (
        lambda f: (f / "text_encoder" / "model.safetensors").unlink(),
        "no .safetensors weights in .*text_encoder",
    ),
    "no unet config": (lambda f: (f / "unet" / "config.json").unlink(), "UNet2DC.* cannot be read"),
    "cut off": (truncate, "unet: its UNet2DConditionModel cannot be read"),
    "a text weight less": (
        lambda f: drop_a_weight(f / "text_encoder" / "model.safetensors"),
        r"1 weight\(s\) of its CLIPTextModel are missing, such as",
    ),
    "a unet weight less": (
        lambda f: drop_a_weight(f / "unet" / "diffusion_pytorch_model.safetensors"),
        r"1 weight\(s\) of its UNet2DConditionModel are missing, such as",
    ),
    "only .bin": (only_bin, "only .bin weights in .*unet, which can run code"),
    "another kind": (lambda f: index_of(f, "FluxPipeline"), "'FluxPipeline'. .*1, 2 and XL"),
    "own code": (lambda f: index_of(f, ["pipeline", "Mine"]), r"\['pipeline', 'Mine'\]"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_folder_that_is_no_pipeline_says_what_is_missing(copy, damage, message):
    damage(copy)
    with pytest.raises(EngineError, match=message) as caught:
        get_engine(f"diffusion:{copy}")
    assert "copy" in str(caught.value)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of its scheduler
def test_parts_of_different_models_are_named_when_they_meet(copy, tmp_path):
    xl = make_tiny_xl_pipeline(tmp_path / "xl")
    shutil.rmtree(copy / "unet")
    shutil.copytree(xl / "unet", copy / "unet")
    engine = get_engine(f"diffusion:{copy}?steps=2")
    with pytest.raises(EngineError, match=r"fails on 61x50 pixels .*belong together"):
        engine(noise(), hole(noise()))


# text form


def test_text_form_splits_into_model_revision_and_options():
    kinds = {"steps": int, "guidance": float, "prompt": str}
    for text, expected in {
        "": ("", {"revision": None}),
        "owner/name": ("owner/name", {"revision": None}),
        "owner/name@refs/pr/1": ("owner/name", {"revision": "refs/pr/1"}),
        "@v2?steps=3": ("", {"revision": "v2", "steps": 3}),
        "o/n@v2?steps=3&guidance=1e1": ("o/n", {"revision": "v2", "steps": 3, "guidance": 10.0}),
        "o/n?prompt=who?=a@b %26 c": ("o/n", {"revision": None, "prompt": "who?=a@b & c"}),
        "o/n?prompt=": ("o/n", {"revision": None, "prompt": ""}),
    }.items():
        assert parse_model(text, kinds) == expected, text


@pytest.mark.parametrize("name", ["with@sign", "what?", "a?steps=1@b"])
def test_folder_may_be_called_what_it_likes(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (tmp_path / name.split("?")[0].split("@")[0]).mkdir(exist_ok=True)
    for text, expected in {"": {}, "?steps=3": {"steps": 3}}.items():
        assert parse_model(f"{folder}{text}", {"steps": int}) == (
            str(folder),
            {"revision": None} | expected,
        )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("o/n?step=2", "cannot read the option 'step=2'.*prompt.*steps"),
        ("o/n?steps", "cannot read the option 'steps'"),
        ("o/n?steps=2&steps=3", "'steps=3'.*at most once"),
        ("o/n?revision=x", "'revision=x'"),
        ("o/n?steps=many", "steps is a whole number, got 'many'"),
        ("o/n?guidance=x", "guidance is a number, got 'x'"),
        ("o/n@?steps=2", "empty revision"),
        ("?steps=0", "steps must be a whole number from 1 to 1000, got 0"),
        ("?steps=1001", "got 1001"),
        ("?guidance=nan", "guidance must be a number from 0 to 100, got nan"),
        ("?strength=1.5", "strength must be a number from 0 to 1, got 1.5"),
        ("?batch_size=0", "batch_size must be .* got 0"),
        ("?precision=float16", "needs CUDA"),
        ("?device=tpu", "'tpu'"),
        ("/no/such/folder", "'/no/such/folder' is no folder.*diffusion:/path/to/FOLDER"),
        ("owner/name/more", "no folder"),
    ],
)
def test_bad_argument_says_why(argument, message):
    with pytest.raises(EngineError, match=message):
        get_engine(f"diffusion:{argument}")


@pytest.mark.parametrize("setting", [{"steps": 2.0}, {"steps": True}, {"guidance": "7"}])
def test_settings_of_another_type_are_refused(folder, setting):
    with pytest.raises(EngineError, match="must be a"):
        diffusion_engine(str(folder), **setting)


def test_strength_that_leaves_no_step_is_refused(folder):
    with pytest.raises(EngineError, match=r"steps=2 at strength=0.4.*2 x 0.4, rounded down"):
        get_engine(f"diffusion:{folder}?steps=2&strength=0.4")


def test_folder_below_home(folder, engine, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert get_engine("diffusion:~/tiny?steps=2").details == engine.details


def test_file_and_folder_with_a_revision_are_refused(folder):
    with pytest.raises(EngineError, match="has no revisions, got 'main'"):
        get_engine(f"diffusion:{folder}@main")
    with pytest.raises(EngineError, match="is a file, not a folder"):
        get_engine(f"diffusion:{folder / 'model_index.json'}")


def test_missing_package_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(EngineError, match=r"diffusers.*pip install 'cnnsvm\[generate\]'"):
        get_engine(f"diffusion:{folder}")


# the hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    hide_hub(tmp_path / "cache", monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def server(cache, copy, monkeypatch):
    with hub_server({"owner/tiny": copy}, monkeypatch) as served:
        yield served


def test_model_comes_from_the_hub_and_then_from_its_cache(server, cache, copy, engine, monkeypatch):
    unwanted = ("unet/diffusion_pytorch_model.bin", "checkpoint.safetensors")
    unwanted += ("unet/diffusion_pytorch_model.fp16.safetensors", "other/model.safetensors")
    (copy / "other").mkdir()
    for name in unwanted:
        (copy / name).write_bytes(b"large")
    image = noise()
    online = get_engine("diffusion:owner/tiny?steps=2")
    assert online.name == "diffusion:owner/tiny"
    assert online.details["model_id"] == "owner/tiny"
    assert online.details["model_revision"] == COMMIT
    np.testing.assert_array_equal(online(image, hole(image)), engine(image, hole(image)))
    assert not server.fetched() & set(unwanted)
    hide_hub(cache, monkeypatch)
    assert get_engine("diffusion:owner/tiny?steps=2").details == online.details
    assert get_engine(f"diffusion:owner/tiny@{COMMIT}?steps=2").details == online.details


def test_autoencoder_of_a_pipeline_comes_alone(server):
    assert get_engine("vae:owner/tiny").details["model_revision"] == COMMIT
    assert {name.partition("/")[0] for name in server.fetched()} == {"vae"}


def test_snapshot_in_the_cache_may_be_named_by_its_path(cache, folder):
    """That is what 'hf download' prints."""
    snapshot = cache / "models--owner--tiny" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    by_path = get_engine(f"diffusion:{snapshot}?steps=2")
    assert by_path.name == "diffusion:owner/tiny"
    assert by_path.details["model_revision"] == COMMIT
    by_commit = get_engine(f"diffusion:owner/tiny@{COMMIT}?steps=2")
    assert by_commit.details == by_path.details


@pytest.mark.parametrize("kind", ["diffusion", "vae"])
def test_unknown_model_without_a_connection_says_what_to_do(cache, kind):
    with pytest.raises(EngineError) as caught:
        get_engine(f"{kind}:owner/unknown")
    message = str(caught.value)
    for part in ("HF_HUB_OFFLINE", f"{kind}:{DEFAULT_MODEL}", f"{kind}:/path/to/FOLDER"):
        assert part in message
    assert "hf download owner/unknown --local-dir FOLDER" in message


@pytest.mark.parametrize("argument", ["", ":?steps=20"])
def test_empty_argument_is_the_default_model(cache, argument):
    with pytest.raises(EngineError, match=f"'{DEFAULT_MODEL}' cannot be fetched"):
        get_engine(f"diffusion{argument}")


def test_withdrawn_model_names_its_mirror(cache):
    with pytest.raises(EngineError, match=f"taken off the hub.*{DEFAULT_MODEL}") as hit:
        get_engine("diffusion:stabilityai/stable-diffusion-2-inpainting")
    assert "hf download" not in str(hit.value)
