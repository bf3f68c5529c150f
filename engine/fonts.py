"""Letters of pictures: Latin and Hangul, since class names, texts and captions may be Korean."""

from importlib.util import find_spec
from pathlib import Path

import matplotlib
from matplotlib.font_manager import fontManager
from PIL import ImageFont


def hangul() -> Path:
    """Return the file of Nanum Gothic (OFL), which a package ships; importing that package would change all figures."""
    package = find_spec("koreanize_matplotlib")
    folder = package.submodule_search_locations[0] if package and package.submodule_search_locations else ""
    return Path(folder, "fonts", "NanumGothic.ttf")


def font(size: int) -> ImageFont.FreeTypeFont:
    """Return a font for pictures drawn without Matplotlib, with letters so many pixels high."""
    return ImageFont.truetype(str(hangul()), size)


fontManager.addfont(hangul())
matplotlib.rcParams["font.family"] = ["DejaVu Sans", "NanumGothic"]  # the second has what the first lacks
