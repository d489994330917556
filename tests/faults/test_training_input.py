"""Mistakes that training refuses: a short message with place and remedy, exit code, no traceback, no hang."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from faults.conftest import Mount
from faults.test_disk import fill
from faults.test_training_restart import assert_same_end, assert_whole, load, stop_midway, train, written
from mpi import Result, done_blocks, forking_program, scimill, start, succeed, wait_until
from scimill.parallel.world import Stop, World
from scimill.store.layout import Field, Layout
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.reader import Reader
from scimill.store.verify import verify
from scimill.store.writer import BlockData, open_writer

CONFIG, INPUT, STORAGE, NUMERICAL, STOPPED = 2, 3, 4, 5, 75
BLOCK = 64
GENERATE = ("--count", 20 * BLOCK, "--block-size", BLOCK, "--tolerance", 1e-4)
ARGS = ("--batch-size", BLOCK, "--epochs", 2, "--checkpoint-steps", 4, "--hidden", "8,8", "--device", "cpu")
LONG = (*ARGS, "--batch-size", 8, "--epochs", 40)
ALONE = World(None)
TIMEOUT = 300.0  # s


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


def assert_refused(result: Result, code: int, *expected_text: str) -> None:
    """Check the exit code, and that one message of at most four lines has these words."""
    assert (result.returncode, result.tracebacks, len(result.errors)) == (code, 0, 1), result
    lines = result.stderr.splitlines()
    rest = lines[lines.index(result.errors[0]) + 1 :]
    details = [line for line in rest if line.startswith(("  where:", "  allowed:", "  do:"))]
    assert len(details) <= 3, result
    if not result.command.startswith("mpirun"):
        assert rest == details, result
    for text in expected_text:
        assert text in result.stderr, result


def run_train(ranks: int, store: Path, run: Path, *args: object) -> Result:
    return scimill(*train(store, run, *args), ranks=ranks, timeout=TIMEOUT)


# ---- stores -----------------------------------------------------------------------------------------------------


def copy_of(store: Path, name: str) -> Path:
    return Path(shutil.copy(store, store.with_name(name)))


def flip_byte(store: Path, dataset: str, row: int) -> None:
    with h5py.File(store, "r", locking=False) as file:
        place = file[dataset].id.get_offset() + row * file[dataset].dtype.itemsize
    content = bytearray(store.read_bytes())
    content[place] ^= 16
    store.write_bytes(content)


def missing(store: Path) -> Path:
    return store.with_name("no-such.h5")


def a_folder(store: Path) -> Path:
    return store.parent


def text(store: Path) -> Path:
    path = store.with_name("letter.h5")
    path.write_text("a letter\n" * 5000)
    return path


def foreign(store: Path) -> Path:
    path = store.with_name("foreign.h5")
    with h5py.File(path, "w") as file:
        file["radius"] = np.ones(5)
    return path


def unfinished(store: Path) -> Path:
    path = store.with_name("begun.h5")
    scimill("droplets", "generate", path, *GENERATE, "--walltime", "1s", "--walltime-margin", "0.999s")
    assert done_blocks(path.with_name("begun.h5.part")) == []
    return path.with_name("begun.h5.part")


def unfinished_renamed(store: Path) -> Path:
    return unfinished(store).rename(store.with_name("renamed.h5"))


def cut_short(store: Path) -> Path:
    path = copy_of(store, "cut.h5")
    os.truncate(path, path.stat().st_size - 1)
    return path


def damaged_block(store: Path) -> Path:
    path = copy_of(store, "damaged.h5")
    flip_byte(path, "radius", 7 * BLOCK + 5)
    return path


def damaged_everywhere(store: Path) -> Path:
    path = copy_of(store, "rotten.h5")
    for block in range(20):
        flip_byte(path, "time", block * BLOCK)
    return path


def of_another_campaign(store: Path) -> Path:
    path = store.with_name("turbulence.h5")
    if not path.exists():
        layout = Layout(40, 10, (Field("velocity", "float32", "m/s", "velocity"),))
        write(path, layout, Provenance("turbulence", 1, "{}", 1), lambda _: {"velocity": np.zeros(10)})
    return path


def with_nan(store: Path) -> Path:
    """A sound store of droplets with one temperature that is not a number."""
    path = store.with_name("nan.h5")
    if path.exists():
        return path
    with Reader.open(store) as reader:
        stored = reader.provenance
        provenance = Provenance(*(stored[name] for name in ("campaign", "algorithm", "config", "seed")))

        def rows(block: int) -> dict[str, np.ndarray]:
            fields = {field.name: reader.rows(block, field.name) for field in reader.layout.fields}
            if block == 11:
                fields["temperature"][3] = np.nan
            return fields

        write(path, reader.layout, provenance, rows, reader)
    assert not any("checksum" in problem for problem in verify(path, ALONE).problems)
    return path


def write(
    path: Path, layout: Layout, provenance: Provenance, rows: Callable[[int], dict[str, np.ndarray]],
    like: Reader | None = None,
) -> None:  # fmt: skip
    """Write a store as campaigns do, with the tables and the ledger of another one."""
    writer = open_writer(ALONE, Output(path), layout, provenance, lambda _: "", Stop(ALONE))
    assert writer is not None
    for block in range(layout.blocks):
        tables = {t.name: {f.name: like.table_rows(block, t, f.name) for f in t.fields} for t in layout.tables if like}
        ledger = {field.name: like.column(field.name)[block] for field in layout.ledger if like}
        writer.write(block, BlockData(rows(block), tables, ledger), started=0.0)
    assert writer.finish()


def of_one_block(store: Path) -> Path:
    path = store.with_name("one.h5")
    succeed("droplets", "generate", path, "--count", BLOCK, "--block-size", BLOCK, "--tolerance", 1e-4, "--overwrite")
    return path


STORES: dict[Callable[[Path], Path], tuple[int, tuple[str, ...]]] = {
    missing: (INPUT, ("no such file", "no-such.h5")),
    a_folder: (INPUT, ("cannot read the file: Is a directory",)),
    text: (INPUT, ("not a scimill store", "letter.h5")),
    foreign: (INPUT, ("not a scimill store", "foreign.h5")),
    unfinished: (INPUT, ("the store is unfinished", "begun.h5.part", "--resume")),
    unfinished_renamed: (INPUT, ("the store is unfinished", "renamed.h5")),
    cut_short: (STORAGE, ("the file is truncated", "cut.h5")),
    damaged_block: (STORAGE, ("its data do not match their checksum", "block 7", "scimill verify")),
    damaged_everywhere: (STORAGE, ("its data do not match their checksum", "rotten.h5, block")),
    of_another_campaign: (
        INPUT,
        ("the store was made by scimill turbulence", "turbulence.h5", "made by scimill droplets"),
    ),
    with_nan: (INPUT, ("temperature has values that are not finite", "nan.h5, block 11")),
    of_one_block: (CONFIG, ("1 block, too few to train, validate and test", "--block-size")),
}
ON_TWO_RANKS = (damaged_block, damaged_everywhere, with_nan)
"""Found by all ranks, by one, by all in different blocks; `test_a_run_that_is_refused_…` has rank 0's."""


@pytest.mark.parametrize(
    ("make", "ranks"),
    [*((make, 1) for make in STORES), *((make, 2) for make in ON_TWO_RANKS)],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_store_to_learn_nothing_from(store: Path, tmp_path: Path, make: Callable[[Path], Path], ranks: int) -> None:
    code, expected_text = STORES[make]
    result = run_train(ranks, make(store), tmp_path / "run", *ARGS)
    assert_refused(result, code, *expected_text)
    assert not (tmp_path / "run" / "model.pt").exists()
    assert not (tmp_path / "run" / "lock").exists() or ranks > 1


def test_a_store_of_one_block_without_validation(store: Path, tmp_path: Path) -> None:
    args = (*ARGS, "--validation-share", 0)
    result = run_train(1, of_one_block(store), tmp_path / "run", *args)
    assert result.returncode == 0, result


# ---- parameters -------------------------------------------------------------------------------------------------

FLAGS: dict[str, tuple[tuple[object, ...], int, str]] = {
    "unknown": (("--epoch", 3), CONFIG, "no such option: --epoch; did you mean --epochs?"),
    "batch-larger-than-the-data": (
        ("--batch-size", 19 * BLOCK + 1), CONFIG, f"at most {19 * BLOCK} samples, all that there are for training"
    ),
    "no-batch": (("--batch-size", 0), CONFIG, "flag --batch-size"),
    "nothing-to-train-on": (("--validation-share", 0.5, "--test-share", 0.5), CONFIG, "leave nothing to train on"),
    "almost-nothing-to-train-on": (("--validation-share", 0.5, "--test-share", 0.49), CONFIG, "too few to train"),
    "a-gpu-that-is-not": (("--device", "cuda"), CONFIG, "PyTorch finds no GPU"),
    "float16-without-gpu": (("--precision", "float16"), CONFIG, "float16 needs a GPU"),
    "unknown-optimizer": (("--optimizer", "sgd"), CONFIG, "adamw"),
    "learning-rate-nan": (("--learning-rate", "nan"), CONFIG, "flag --learning-rate"),
    "resume-and-overwrite": (("--resume", "--overwrite"), CONFIG, "cannot be combined"),
    "trial-without-number": (("--sweep", "sweep.yaml"), CONFIG, "--sweep needs --trial"),
}  # fmt: skip
CASES = [*((name, 1) for name in FLAGS), ("batch-larger-than-the-data", 2), ("a-gpu-that-is-not", 2)]


@pytest.mark.parametrize(("name", "ranks"), CASES)
def test_a_wrong_flag(store: Path, tmp_path: Path, name: str, ranks: int) -> None:
    flags, code, expected_text = FLAGS[name]
    assert_refused(run_train(ranks, store, tmp_path / "run", *ARGS, *flags), code, expected_text)
    assert list(tmp_path.rglob("*.pt")) == []


DIVERGING = (
    "--learning-rate", 1e3, "--optimizer", "adam", "--warmup-steps", 0, "--schedule", "constant",
    "--hidden", "8,8,8,8,8,8", "--activation", "relu", "--checkpoint-steps", 10**6, "--log-steps", 10**6,
)  # fmt: skip


@pytest.mark.parametrize(("ranks", "interval"), [(1, "10min"), (2, "10min"), (2, "0.02s")])
def test_a_loss_that_diverges(store: Path, tmp_path: Path, ranks: int, interval: str) -> None:
    """Also where a checkpoint, and with it a look at the loss, is due by the clock, which each rank has its own of."""
    args = (*ARGS, *DIVERGING, "--checkpoint-interval", interval)
    result = run_train(ranks, store, tmp_path / "run", *args)
    assert_refused(result, NUMERICAL, "train loss is ", "at step", str(tmp_path / "run"), "--learning-rate")


# ---- the output -------------------------------------------------------------------------------------------------


def test_an_output_that_is_a_file(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("precious")
    for flags in ((), ("--resume",), ("--overwrite",)):
        assert_refused(run_train(1, store, run, *ARGS, *flags), STORAGE, "is a file", str(run))
    assert run.read_text() == "precious"


def test_a_directory_that_is_missing(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "missing" / "run"
    assert_refused(run_train(1, store, run, *ARGS), STORAGE, "does not exist", f"mkdir -p {run.parent}")
    assert not run.parent.exists()


@pytest.mark.parametrize(("is_new", "ranks"), [(True, 1), (True, 2), (False, 1)], ids=["new", "new-2-ranks", "resumed"])
def test_a_read_only_disk(store: Path, mount: Mount, stopped: Path, is_new: bool, ranks: int) -> None:
    disk = mount("4m")
    if not is_new:
        shutil.copytree(stopped, disk / "run")
    mount("4m", "ro")
    for flags in ((), ("--resume",), ("--overwrite",))[: 3 if ranks == 1 else 1]:
        assert_refused(run_train(ranks, store, disk / "run", *ARGS, *flags), STORAGE, "cannot be written")


@pytest.mark.parametrize("size", [4, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64])
def test_a_disk_of_some_kilobytes(store: Path, mount: Mount, size: int) -> None:
    """Each fills up at a different file of the run."""
    run = mount(f"{size}k") / "run"
    result = scimill(*train(store, run, *LONG, "--log-steps", 1))
    assert_refused(result, STORAGE, "the disk is full")
    for path in run.glob("*.pt"):
        assert load(path)
    assert list(run.glob("*.part")) == []


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_disk_that_fills_up(store: Path, mount: Mount, ranks: int) -> None:
    run = mount("2m") / "run"
    with start(*train(store, run, *LONG), ranks=ranks, program=forking_program()) as job:
        wait_until((run / "checkpoint-previous.pt").exists, "two checkpoints")
        ballast = fill(run.parent)
        result = job.wait(TIMEOUT)
    assert_refused(result, STORAGE, "the disk is full", "--resume")
    steps = [load(path)["position"]["step"] for path in sorted(run.glob("checkpoint*.pt"))]
    assert 0 < steps[0] < steps[-1] or len(steps) == 1
    ballast.unlink()
    args = ("--walltime", "1s", "--walltime-margin", "0.999s")
    resumed = run_train(ranks, store, run, *LONG, "--resume", *args)
    assert resumed.returncode == STOPPED, resumed
    assert load(run / "checkpoint.pt")["position"]["step"] == steps[-1] + 1


# ---- resuming ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(store: Path, folder: Path) -> Path:
    """A run killed before its step 15, with checkpoints at 8 and 12."""
    run = folder / "stopped"
    assert scimill(*train(store, run, *ARGS), instant="step 15").returncode == -signal.SIGKILL
    assert [load(run / name)["position"]["step"] for name in ("checkpoint-previous.pt", "checkpoint.pt")] == [8, 12]
    return run


@pytest.fixture(scope="module")
def whole(store: Path, folder: Path) -> Path:
    run = folder / "whole"
    assert scimill(*train(store, run, *ARGS)).returncode == 0
    return run


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "lock"}


CHANGES: dict[str, tuple[tuple[object, ...], str]] = {
    "epochs": (("--epochs", 9), "epochs was 2, is 9"),
    "seed": (("--seed", 2), "seed was 1, is 2"),
    "batch-size": (("--batch-size", 32), "batch_size was 64, is 32"),
    "hidden": (("--hidden", "8,9"), "hidden was"),
    "precision": (("--precision", "float64"), "precision was float32, is float64"),
    "optimizer": (("--optimizer", "lars"), "optimizer was adam, is lars"),
}


@pytest.mark.parametrize(("name", "ranks"), [*((name, 1) for name in CHANGES), ("epochs", 2)])
def test_resuming_with_another_configuration(store: Path, run: Path, name: str, ranks: int) -> None:
    flags, expected_text = CHANGES[name]
    before = contents(run)
    result = run_train(ranks, store, run, *ARGS, *flags, "--resume")
    assert_refused(result, CONFIG, expected_text, str(run), "--overwrite")
    assert contents(run) == before


def test_resuming_with_what_may_change(store: Path, run: Path, whole: Path) -> None:
    args = ("--walltime", "1h", "--log-steps", 5, "--device", "auto", "--in-memory", "--checkpoint-steps", 100)
    result = run_train(1, store, run, *ARGS, *args, "--checkpoint-interval", "1h", "--resume")
    assert result.returncode == 0, result
    assert_same_end(run, whole)


def test_resuming_with_another_store(store: Path, run: Path) -> None:
    other = store.with_name("other.h5")
    succeed("droplets", "generate", other, *GENERATE, "--seed", 2, "--overwrite")
    before = contents(run)
    result = run_train(1, other, run, *ARGS, "--resume")
    assert_refused(result, INPUT, "the run was started on another store", str(run), "--overwrite")
    assert contents(run) == before


def test_resuming_with_the_same_store_elsewhere(store: Path, run: Path, whole: Path) -> None:
    result = run_train(1, copy_of(store, "moved.h5"), run, *ARGS, "--resume")
    assert result.returncode == 0, result
    assert_same_end(run, whole)


OTHERS: dict[str, tuple[object, ...]] = {
    "wider": ("--hidden", "8,9"),
    "other-activation": ("--activation", "tanh"),
    "plain": ("--network", "plain"),
    "other-optimizer": ("--optimizer", "lars"),
    "other-seed": ("--seed", 5),
}


@pytest.mark.parametrize(("name", "ranks"), [*((name, 1) for name in OTHERS), ("wider", 2)])
def test_a_checkpoint_of_another_run(store: Path, run: Path, tmp_path: Path, name: str, ranks: int) -> None:
    other = tmp_path / "other"
    assert scimill(*train(store, other, *ARGS, *OTHERS[name]), instant="step 15").returncode == -signal.SIGKILL
    for file in ("checkpoint.pt", "checkpoint-previous.pt"):
        shutil.copy(other / file, run / file)
    before = contents(run)
    result = run_train(ranks, store, run, *ARGS, "--resume")
    assert_refused(result, INPUT, str(run))
    assert "the checkpoint belongs to another" in result.errors[0], result
    assert contents(run) == before


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weights = load(path)["model"]["body.0.weight"].numpy().tobytes()
    content[content.index(weights) + 17] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped-bit": flip_bit,
    "cut-short": lambda path: os.truncate(path, 3000),
    "empty": lambda path: os.truncate(path, 0),
    "text": lambda path: path.write_text("a letter"),
    "a-model": lambda path: shutil.copy(path.parents[1] / "model.pt", path),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_previous_checkpoint_is_used_where_the_last_is_damaged(
    store: Path, run: Path, whole: Path, name: str
) -> None:
    shutil.copy(whole / "model.pt", run.parent)
    DAMAGES[name](run / "checkpoint.pt")
    result = run_train(1, store, run, *ARGS, "--resume")
    assert (result.returncode, result.tracebacks, result.errors) == (0, 0, []), result
    assert_same_end(run, whole)
    assert_whole(run)


@pytest.mark.parametrize(("name", "ranks"), [*((name, 1) for name in DAMAGES if name != "gone"), ("flipped-bit", 2)])
def test_two_damaged_checkpoints(store: Path, run: Path, whole: Path, name: str, ranks: int) -> None:
    shutil.copy(whole / "model.pt", run.parent)
    for file in ("checkpoint.pt", "checkpoint-previous.pt"):
        DAMAGES[name](run / file)
    before = contents(run)
    assert_refused(run_train(ranks, store, run, *ARGS, "--resume"), INPUT, "checkpoint", str(run))
    assert contents(run) == before


@pytest.mark.parametrize("damage", ["empty", "text", "gone"])
def test_a_damaged_record(store: Path, run: Path, damage: str) -> None:
    DAMAGES[damage](run / "run.json")
    assert_refused(run_train(1, store, run, *ARGS, "--resume"), INPUT, "record is damaged", "run.json")


@pytest.mark.parametrize("damage", ["empty", "text"])
def test_a_damaged_configuration(store: Path, run: Path, damage: str) -> None:
    DAMAGES[damage](run / "config.yaml")
    result = run_train(1, store, run, *ARGS, "--resume")
    assert_refused(result, result.returncode)
    assert result.returncode in (CONFIG, INPUT), result


def test_a_configuration_that_is_no_text(store: Path, run: Path) -> None:
    (run / "config.yaml").write_bytes(b"\xff\xfe\x80")
    result = run_train(1, store, run, *ARGS, "--resume")
    assert_refused(result, result.returncode)
    assert result.returncode in (CONFIG, INPUT), result


def test_metrics_that_are_gone(store: Path, run: Path, whole: Path) -> None:
    """They are only a record: training resumes or reports the problem; the checkpoints stay."""
    (run / "metrics.csv").unlink()
    before = contents(run)
    result = run_train(1, store, run, *ARGS, "--resume")
    if result.returncode:
        assert_refused(result, STORAGE, "metrics.csv")
        assert contents(run) == before
    else:
        assert_same_end(run, whole)


# ---- two runs, and a user at the keyboard -----------------------------------------------------------------------


def test_a_second_run_of_one_directory(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start(*train(store, run, *LONG)) as job:
        wait_until(lambda: written(run), "a checkpoint")
        for flag in ("--resume", "--overwrite"):
            assert_refused(run_train(1, store, run, *LONG, flag), STORAGE, "another run is writing", "lock")
        result = stop_midway(job, run, written(run), signal.SIGTERM)
    assert result.returncode == STOPPED, result
    assert not (run / "lock").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_control_c(store: Path, tmp_path: Path, ranks: int) -> None:
    """A terminal sends SIGINT to all processes of the job, also to mpirun, which then ends its ranks."""
    run = tmp_path / "run"
    with start(*train(store, run, *LONG), ranks=ranks) as job:
        wait_until(lambda: written(run), "a checkpoint")
        os.killpg(job.process.pid, signal.SIGINT)
        result = job.wait()
    assert result.returncode == STOPPED if ranks == 1 else result.returncode != 0, result
    assert (result.tracebacks, result.errors) == (0, []), result
    steps = [load(path)["position"]["step"] for path in run.glob("checkpoint*.pt")]
    resumed = run_train(ranks, store, run, *LONG, "--resume", "--walltime", "1s", "--walltime-margin", "0.999s")
    assert resumed.returncode == STOPPED, resumed
    assert load(run / "checkpoint.pt")["position"]["step"] == max(steps) + 1


def test_a_refused_overwrite_leaves_the_run_that_is_there(store: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    run, small = tmp_path / "run", ("--batch-size", 64, "--epochs", 1)
    assert run_train(1, store, run, *small).returncode == 0
    kept = files()
    for data, flags in ((tmp_path / "no.h5", ()), (store, ("--device", "cuda")), (store, ("--batch-size", 10**6))):
        result = run_train(1, data, run, *small, *flags, "--overwrite")
        assert result.returncode in (CONFIG, INPUT), result
        assert files() == kept


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_refused_leaves_no_directory(tmp_path: Path, ranks: int) -> None:
    run, own = tmp_path / "run", tmp_path / "own"
    own.mkdir()
    for folder in (run, own):
        assert_refused(run_train(ranks, tmp_path / "no.h5", folder, *ARGS), INPUT, "no.h5")
    assert not run.exists()
    assert list(own.iterdir()) == []  # made by the user, so it stays
