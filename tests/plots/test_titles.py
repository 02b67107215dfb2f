import pytest

from omnistream.plots.titles import metric_title, plot_title, task_title


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("geometry/depth/0", "Geometry: depth, sample 1"),
        ("ssl/image/views", "Self-supervision on images: views and masks"),
        ("captioning/answers", "Captioning: generated answers"),
        ("a/pca/1", "A: pca, sample 2"),
        ("0", "0"),
    ],
)
def test_plots(key, title):
    assert plot_title(key) == title


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("geometry/abs_rel_median", "Geometry: Abs Rel, median-aligned"),
        ("geometry/delta1_scale", "Geometry: share within a ratio of 1.25, scale-aligned"),
        ("ssl/video/ibot", "Self-supervision on videos: ibot"),
        ("my_task/some_loss", "My task: some loss"),
        ("loss", "loss"),
    ],
)
def test_metrics(key, title):
    assert metric_title(key) == title


def test_tasks():
    assert task_title("geometry") == "Geometry"
    assert task_title("ssl/other") == "Self-supervision on other"
