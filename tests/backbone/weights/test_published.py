"""The list of published weights against timm's registry."""

import timm

from omnistream.backbone import VARIANTS
from omnistream.backbone.variants import IMAGENET_MEAN, IMAGENET_STD, SAT493M_MEAN, SAT493M_STD
from omnistream.backbone.weights.published import list_public_weights


def test_ids_exist_in_timm_and_have_the_right_statistics():
    public = list_public_weights()
    assert len({weights.hub_id for weights in public}) == len(public) == 17
    registered = set(timm.list_pretrained("vit_*dinov3*"))
    ids = [weights.hub_id.removeprefix("timm/") for weights in public if weights.hub_id.startswith("timm/")]
    assert len(ids) == 8
    assert set(ids) <= registered
    for name in ids:
        settings = timm.get_pretrained_cfg(name)
        assert settings.hf_hub_id == f"timm/{name}"
        expected = (SAT493M_MEAN, SAT493M_STD) if name.endswith("sat493m") else (IMAGENET_MEAN, IMAGENET_STD)
        assert (settings.mean, settings.std) == expected


def test_every_pretrained_variant_is_listed():
    listed = {weights.variant for weights in list_public_weights()}
    assert listed == {name for name, variant in VARIANTS.items() if variant.timm_name}
