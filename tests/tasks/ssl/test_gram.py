import pytest
from ssl_oracle import close, sines

from omnistream.tasks.ssl.gram import gram_loss, resize_patches

STUDENT, TEACHER = sines(2, 5, 3, a=0.8, b=0.1), sines(2, 5, 3, a=0.6, b=0.4)


@pytest.mark.parametrize(
    ("options", "per_image", "per_batch"),
    [
        ({}, 0.712345, 1.079128),
        ({"normalize": False}, 2.141784, 2.871163),
        ({"remove_negative": True}, 0.104699, 0.248994),
        ({"remove_only_teacher_negative": True}, 0.542172, 0.731017),
    ],
)
def test_recorded_values(options, per_image, per_batch):
    close(gram_loss(STUDENT, TEACHER, **options), per_image)
    close(gram_loss(STUDENT, TEACHER, image_level=False, **options), per_batch)


def test_gradient_reaches_the_student_only():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    gram_loss(student, teacher).backward()
    close(student.grad[0, 0], [-0.054105, -0.022286, 0.023051])
    assert teacher.grad is None


def test_zero_for_equal_features_and_blind_to_their_length():
    assert gram_loss(STUDENT, STUDENT) == 0
    close(gram_loss(7 * STUDENT, TEACHER), 0.712345)


def test_resize_to_the_students_grid():
    patches = sines(1, 4, 4, 2, a=0.2, b=0.0)
    expected = [[0.682412, 0.761671], [0.797526, 0.738049], [-0.704469, -0.776542], [-0.785836, -0.718890]]
    close(resize_patches(patches, (2, 2))[0].flatten(0, 1), expected)
    assert resize_patches(patches, (4, 4)) is patches
