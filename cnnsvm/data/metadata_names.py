"""Names and forms by which metadata tell what made an image: the one table of them.

Names of tools are looked for in fields that name a tool alone: a caption may mention a generator
that did not make the image. What a caption may hold is the form of a generator's settings.
"""

import re

GENERATED, EDITED, CAMERA, UNKNOWN = "generated", "edited", "camera", "unknown"

#: Names of generators, in fields that name a tool.
GENERATORS = (
    r"Adobe Firefly",
    r"AUTOMATIC1111|stable-diffusion-webui|SD\.Next",
    r"Bing Image Creator|Image Creator from (?:Microsoft )?Designer",
    r"Black Forest Labs|FLUX[. ]?[12]\b",
    r"ChatGPT|GPT-4o|gpt-image|DALL[\-·. ]?E\b|OpenAI",
    r"ComfyUI",
    r"Craiyon|NightCafe|DreamStudio|Leonardo\.?Ai\b|Ideogram|Recraft|Krea\.ai",
    r"Doubao|Jimeng|Seedream|豆包|即梦",
    r"Draw Things|DiffusionBee|Easy Diffusion|Fooocus|InvokeAI|SwarmUI|StableSwarm",
    r"Google (?:AI|Gemini|Imagen)|Nano Banana",
    r"Image Playground",
    r"Imagined with AI|Meta AI",
    r"Midjourney",
    r"NovelAI",
    r"Stable ?Diffusion|StabilityAI|Stability AI|SDXL",
    r"xAI Grok|Grok Imagine",
    r"(?:Made|Created|Generated) (?:with|by|using) (?:Google |Meta |generative )?AI\b",
)
#: Names of software that edits or develops, in fields that name a tool.
EDITORS = (
    r"Adobe|Photoshop|Lightroom",
    r"GIMP|Krita|paint\.net|Pixelmator|Affinity|PaintShop|Photopea|Canva|PicsArt|Picsart",
    r"Snapseed|VSCO|Facetune|BeautyPlus|Meitu|FaceApp|Polarr|Fotor|Pixlr",
    r"Capture One|DxO|darktable|RawTherapee|Luminar|Topaz|ON1|ACDSee|Aperture|PhotoScape",
    r"ImageMagick|GraphicsMagick|XnView|IrfanView|Picasa|Paint Shop",
)
#: Forms of the settings that generators write, in any text -> whose they are. All of a form's parts
#: must occur; each is looked for alone, so that no text makes the search long.
SETTINGS = {
    "settings as of AUTOMATIC1111": (r"\bSteps: \d+, ", r"\b(?:Sampler|CFG scale|Seed|Size): "),
    "settings of SwarmUI": (r'"sui_image_params"',),
    "workflow of ComfyUI": (r'"class_type"\s*:\s*"', r'"inputs"'),
    "graph of ComfyUI": (r'"last_node_id"', r'"last_link_id"', r'"nodes"'),
    "settings of Fooocus": (r'"base_model"', r'"guidance_scale"', r'"sharpness"|"performance"'),
    "settings of Draw Things": (r'"c"\s*:', r'"sampler"\s*:', r'"seed"\s*:', r'"steps"\s*:'),
    "settings of NovelAI": (r'"uc"\s*:', r'"sampler"\s*:', r'"seed"\s*:'),
    "prompt of Midjourney": (r"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-",),
    "label of AIGC (GB 45438-2025)": (r'"Label"\s*:\s*"[123]"', r'"ContentProducer"'),
}
#: Keywords of PNG texts that generators alone use; others are told by what they hold.
PNG_KEYWORDS = {
    "invokeai_metadata": "settings of InvokeAI",
    "invokeai_graph": "workflow of InvokeAI",
    "sd-metadata": "settings of InvokeAI",
    "Dream": "settings of InvokeAI",
    "dream": "settings of InvokeAI",
    "fooocus_scheme": "settings of Fooocus",
    "generation_data": "settings of a generator",
    "use_stable_diffusion_model": "settings of Easy Diffusion",
    "AIGC": "label of AIGC (GB 45438-2025)",
}
#: IPTC's vocabulary of digital sources, as XMP and C2PA use it -> what it says.
DIGITAL_SOURCES = {
    "trainedAlgorithmicMedia": GENERATED,
    "compositeWithTrainedAlgorithmicMedia": GENERATED,  # of a part at least
    "compositeSynthetic": GENERATED,
    "algorithmicMedia": UNKNOWN,  # without a trained model, such as a fractal
    "algorithmicallyEnhanced": EDITED,
    "humanEdits": EDITED,
    "minorHumanEdits": EDITED,
    "compositeCapture": EDITED,
    "composite": EDITED,
    "softwareImage": EDITED,
    "digitalArt": EDITED,
    "digitalCreation": EDITED,
    "virtualRecording": EDITED,
    "dataDrivenMedia": UNKNOWN,
    "screenCapture": UNKNOWN,
    "digitalCapture": CAMERA,
    "computationalCapture": CAMERA,
    "multiFrameComputational": CAMERA,
    "negativeFilm": CAMERA,
    "positiveFilm": CAMERA,
    "print": CAMERA,
}

# a name is no part of a longer word; other scripts have no such edges
_GENERATOR = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(GENERATORS)})", re.IGNORECASE)
_EDITOR = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(EDITORS)})", re.IGNORECASE)
_SETTINGS = {whose: [re.compile(part) for part in parts] for whose, parts in SETTINGS.items()}
_SOURCE = re.compile(r"digitalsourcetype/(\w{1,60})", re.IGNORECASE)


def of_tool(text: str) -> str:
    """Say what a field that names a tool says."""
    if _GENERATOR.search(text):
        return GENERATED
    return EDITED if _EDITOR.search(text) else UNKNOWN


def settings_in(text: str) -> str | None:
    """Name whose settings a text holds, None if none that is known."""
    fitting = (
        whose for whose, parts in _SETTINGS.items() if all(part.search(text) for part in parts)
    )
    return next(fitting, None)


def digital_sources(text: str) -> list[str]:
    """List the terms of IPTC's vocabulary that a text names, each once, in their order."""
    return list(dict.fromkeys(_SOURCE.findall(text)))


def of_source(term: str) -> str:
    """Say what a term of IPTC's vocabulary of digital sources says."""
    return DIGITAL_SOURCES.get(term, UNKNOWN)
