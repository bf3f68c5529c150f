"""The photographs by which restoration is compared in the literature; lay them out as their downloads are.

BSDS500 (Arbelaez et al. 2011, https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html; for
research and education), DIV2K (Agustsson and Timofte 2017, https://data.vision.ee.ethz.ch/cvl/DIV2K/; for research),
T91 (Yang et al. 2010), Set5 (Bevilacqua et al. 2012), Set12 and BSD68 (as used by Zhang et al. 2017), Set14 (Zeyde et
al. 2010), and BSD100, here the whole photos of the validation part of BSDS500. None of them is downloaded: their
authors' servers come and go, and give no checksums.
"""

from pathlib import Path

from datamodules.photo_files import File, decoded_photos
from datamodules.photos import PhotosDataModule
from datamodules.picture_files import find_pictures
from engine.errors import UserError, some

# Folders in the downloads, below the root; of each line the first that is there is used.
PLACES: dict[str, list[tuple[str, ...]]] = {
    "BSDS500": [("bsds500/train", "BSR/BSDS500/data/images/train"), ("bsds500/test", "BSR/BSDS500/data/images/test")],
    "BSD100": [("bsds500/val", "BSR/BSDS500/data/images/val")],
    "DIV2K": [("DIV2K_train_HR",)],
    "DIV2K100": [("DIV2K_valid_HR",)],
    "T91": [("t91", "T91")],
    "Set5": [("set5", "Set5")],
    "Set12": [("set12", "Set12")],
    "Set14": [("set14", "Set14")],
    "BSD68": [("bsd68", "BSD68")],
}


class RestorationSetsDataModule(PhotosDataModule):
    """Photo sets of the literature: some to train on, a tenth of them to validate, and one to be measured on.

    Train on BSDS500 means on its training and test part: BSD68 and BSD100 are its validation part.

    Args:
        train: Names of the sets to train on, of BSDS500, DIV2K and T91.
        test: Name of the set to be measured on: Set5, Set12, Set14, BSD68, BSD100 or DIV2K100.
        root: Folder that holds the sets.
        grey: Whether colours are left out; of Set12 and BSD68 there are none.
        crop: Height and width of a training window.
        windows: Training windows in an epoch.
        batch_size: Windows in a batch.
        turn: Whether windows are turned by quarters and stood on their heads, besides being mirrored.
    """

    def __init__(
        self,
        train: list[str],
        test: str,
        root: str = "data",
        grey: bool = False,
        crop: int = 64,
        windows: int = 8000,
        batch_size: int = 8,
        turn: bool = True,
    ) -> None:
        super().__init__(grey or test in ("Set12", "BSD68"), crop, windows, batch_size, turn)
        self.train_names, self.test_name, self.root = train, test, Path(root)

    def build_store(self) -> Path:
        files: list[File] = [("train", path) for name in self.train_names for path in find_set(self.root, name)]
        files += [("test", path) for path in find_set(self.root, self.test_name)]
        return decoded_photos(files, self.grey, 10_000, self.root)


def find_set(root: Path, name: str) -> list[Path]:
    """List the photos of a set.

    Raises:
        UserError: There is no such set, or it is not below the root.
    """
    if name not in PLACES:
        raise UserError(f"there is no photo set {name!r}; there are {', '.join(PLACES)}")
    found: list[Path] = []
    for places in PLACES[name]:
        folder = next((root / place for place in places if (root / place).is_dir()), None)
        if folder is None:
            raise UserError(f"{name} is not in {root}: {some([str(root / place) for place in places])} is missing")
        found += find_pictures([folder])
    if not found:
        raise UserError(f"the folders of {name} in {root} hold no pictures")
    return found
