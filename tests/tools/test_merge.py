"""`rank --shard` and `merge`, as a job array calls them."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.files.ranking_file import load_ranking
from tests.processes import run_layerprec
from tests.split_cases import assert_equal_rankings, write_transformer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_transformer(folder, samples=3)
    for number in (1, 2):
        done = rank(folder, "--shard", f"{number}/2", "--save-partial", f"part-{number}.npz")
        assert done.returncode == 0, done.stderr
    return folder


def rank(folder, *options):
    options = ("--load-inputs", "samples", "--threads", "1", *options)
    return run_layerprec("rank", "model.onnx", *options, folder=folder)


def merge(folder, *options):
    return run_layerprec("merge", *options, "--model", "model.onnx", folder=folder)


def test_merged_parts_are_the_ranking_of_all_samples(folder):
    assert rank(folder, "--save-ranking", "whole.json").returncode == 0

    done = merge(folder, "part-2.npz", "part-1.npz", "--load-inputs", "samples",
                 "--save-ranking", "merged.json", "--save-script", "script.py")  # fmt: skip

    assert done.returncode == 0, done.stderr
    ranking = load_ranking(folder / "merged.json")
    assert_equal_rankings(ranking, load_ranking(folder / "whole.json"))
    assert ranking.conditions.sample_count == 3
    assert ranking.conditions.threads == 1
    assert "Saved the script to script.py" in done.stdout


def test_without_samples_the_forecast_decides_and_says_so(folder):
    done = merge(folder, "part-1.npz", "part-2.npz", "--top-k", "2", "--save-script", "two.py")

    assert done.returncode == 0, done.stderr
    assert "the forecast decides: give the samples" in " ".join(done.stdout.split())


def test_a_tolerance_is_measured_on_the_samples_that_are_given(folder):
    done = merge(folder, "part-1.npz", "part-2.npz", "--load-inputs", "samples",
                 "--tolerance", "1e-2")  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "made-up" not in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["part-1.npz"], "1 of 2 parts are missing: 2/2"),
        (["part-1.npz", "part-2.npz", "part-1.npz"], "overlap: both are shard 1/2"),
        (["part-1.npz", "model.onnx"], "is not a partial ranking"),
        (["part-1.npz", "nowhere.npz"], "No such file"),
    ],
)
def test_what_makes_no_whole_is_refused_and_nothing_is_written(folder, options, told):
    done = merge(folder, *options, "--save-ranking", "none.json")

    assert done.returncode == 1
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "none.json").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3", "\u0661/2"])
def test_a_shard_that_cannot_be_is_refused(folder, shard):
    done = rank(folder, f"--shard={shard}", "--save-partial", "x.npz")

    assert done.returncode == 1
    assert "`--shard` must be like 1/4" in done.stderr


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--save-ranking", "x.json"], "`--save-ranking`"),
        (["--exact", "2"], "`--exact`"),
        (["--impact", "exact"], "`--impact exact`"),
        (["--top-k", "3"], "a choice of layers"),
        (["--tolerance", "1e-3"], "a criterion"),
        (["--save-script", "x.py"], "a file that keeps layers in FP32"),
        (["--save-report", "x.md"], "a report"),
        (["--format", "json"], "`--format`"),
    ],
)
def test_a_part_is_refused_beside_what_needs_the_whole(folder, options, what):
    done = rank(folder, "--shard", "1/2", "--save-partial", "x.npz", *options)

    assert done.returncode == 1
    assert f"{what} needs the whole" in " ".join(done.stderr.split())


def test_a_shard_without_a_file_is_refused(folder):
    done = rank(folder, "--shard", "1/2")

    assert done.returncode == 1
    assert "Save the part with `--save-partial`" in done.stderr


def test_a_part_of_fewer_samples_than_parts_is_empty_and_merges(folder):
    for number in range(1, 6):
        done = rank(folder, "--shard", f"{number}/5", "--save-partial", f"fifth-{number}.npz")
        assert done.returncode == 0, done.stderr

    done = merge(folder, *(f"fifth-{number}.npz" for number in range(1, 6)))

    assert done.returncode == 0, done.stderr


def test_the_model_must_be_named(folder):
    done = run_layerprec("merge", "part-1.npz", "part-2.npz", folder=folder)

    assert done.returncode == 1
    assert "--model model.onnx" in done.stderr
