"""Settings: what `git config` says, what it may say, and what the environment says over it."""

from collections.abc import Mapping

import pytest

from git_theta.config import GIB, Settings, read_settings
from git_theta.errors import ConfigError
from git_theta.sharing import Sharing


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, Settings()),
        ({"theta.unknown": "x", "core.bare": None}, Settings()),
        ({"theta.compression": "none"}, Settings(compression="none")),
        ({"theta.maxobjectsize": "65536"}, Settings(max_object_bytes=65536)),
        ({"theta.maxobjectsize": "512m"}, Settings(max_object_bytes=GIB // 2)),
        ({"theta.maxobjectsize": "2G"}, Settings(max_object_bytes=2 * GIB)),
        ({"theta.maxobjectsize": "1t", "theta.threads": "8"}, Settings(max_object_bytes=1024 * GIB, threads=8)),
        ({"theta.smudgelimit": "0"}, Settings()),
        ({"theta.updates": "delta, sparse"}, Settings(updates=("delta", "sparse"))),
        ({"theta.updates": "dense"}, Settings(updates=("dense",))),
        ({"theta.updates": None}, Settings(updates=())),
        ({"theta.merge.device": "cuda:1"}, Settings(merge_device="cuda:1")),
        ({"theta.merge.device": "cpu"}, Settings(merge_device="cpu")),
        ({"theta.merge.device": ""}, Settings()),
        ({"theta.skipsmudge": None}, Settings(skip_smudge=True)),
        ({"theta.skipsmudge": ""}, Settings(skip_smudge=False)),
        ({"theta.skipsmudge": "Yes", "theta.fsync": "ON"}, Settings(skip_smudge=True, fsync=True)),
        ({"theta.skipsmudge": "off", "theta.fsync": "0"}, Settings()),
        ({"theta.diffstats": "auto"}, Settings(diff_stats_bytes=GIB // 2)),
        ({"theta.diffstats": "2g"}, Settings(diff_stats_bytes=2 * GIB)),
        *(({"theta.diffstats": value}, Settings(diff_stats_bytes=0)) for value in ("false", "0", "off", "")),
        *(({"theta.diffstats": value}, Settings(diff_stats_bytes=2**63 - 1)) for value in ("true", "1", "Yes", None)),
        *(({"core.sharedrepository": value}, Settings()) for value in ("umask", "0", "false", "no", "")),
        *(
            ({"core.sharedrepository": value}, Settings(sharing=Sharing(0o660)))
            for value in ("group", "1", "true", None)
        ),
        *(({"core.sharedrepository": value}, Settings(sharing=Sharing(0o664))) for value in ("all", "world", "2")),
        ({"core.sharedrepository": "0640"}, Settings(sharing=Sharing(0o640, exact=True))),
        ({"core.sharedrepository": "0777"}, Settings(sharing=Sharing(0o666, exact=True))),
    ],
    ids=str,
)
def test_settings_are_read(config: Mapping[str, str | None], settings: Settings) -> None:
    assert read_settings(config, {}) == settings


@pytest.mark.parametrize(
    ("value", "skip"),
    [("1", True), ("true", True), ("True", True), ("0", False), ("False", False), ("no", False), ("", False)],
)
@pytest.mark.parametrize("configured", ["true", "false"])
def test_the_environment_goes_before_the_configuration(value: str, skip: bool, configured: str) -> None:
    settings = read_settings({"theta.skipsmudge": configured}, {"GIT_THETA_SKIP_SMUDGE": value})
    assert settings.skip_smudge is skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("theta.diffStats", value) for value in ("much", "1.5g", "-1", "AUTO")),
        *(("theta.compression", value) for value in ("zip", "AUTO", "", None)),
        *(("theta.maxObjectSize", value) for value in ("64", "65535", "-1", "1.5g", "1gb", " 1g", "g", "", None)),
        *(("theta.maxObjectSize", value) for value in ("9" * 16, "9" * 15 + "t", "0x10000", "٣٣٣٣٣٣")),
        *(("theta.threads", value) for value in ("-1", "257", "1k", "many", None)),
        *(("theta.smudgeLimit", value) for value in ("-1", "half", "1e9")),
        *(("theta.streamLimit", value) for value in ("-1", "never", None)),
        *(("theta.skipSmudge", value) for value in ("2", "maybe", " ", "true\x1b[31m")),
        ("theta.fsync", "y"),
        *(
            ("theta.merge.device", value)
            for value in ("cuda:", "cuda:x", ":1", "CUDA", "cuda:1:2", "cpu\n", "\x1b[31m")
        ),
        *(("core.sharedRepository", value) for value in ("0400", "0860", "users", "Group", "-1", "0000660")),
    ],
)
def test_a_value_that_means_nothing_is_named(key: str, value: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({key.lower(): value}, {})
    assert key in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_environment_variable_that_means_nothing_is_named() -> None:
    with pytest.raises(ConfigError, match="GIT_THETA_SKIP_SMUDGE"):
        read_settings({}, {"GIT_THETA_SKIP_SMUDGE": "perhaps"})


def test_what_is_not_set_follows_the_machine() -> None:
    assert 1 <= Settings().thread_count <= 8
    assert Settings(threads=32).thread_count == 32
    assert Settings().smudge_limit > 0
    assert Settings(smudge_limit_bytes=7).smudge_limit == 7
