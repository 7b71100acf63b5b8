"""Licences of files and repositories, allow-lists, and arithmetic."""

from __future__ import annotations

import pytest

from corpora.document import Document
from corpora.licences import (
    ALIASES,
    KNOWN,
    NOT_HUB_IDS,
    PERMISSIVE_ONLY,
    check,
    check_allowed,
    combine_counted,
    licence_of,
    normalise_licence,
    of_expression,
    of_header,
    of_repository,
)

APACHE = """# Copyright 2024 The Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
"""
GPL = """/*
 * This program is free software: you can redistribute it and/or modify
 * it under the terms of the GNU General Public License as published by
 * the Free Software Foundation, either version 3 of the License, or
 */
"""
BSD = """Copyright (c) 2020, somebody
Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:
"""
MIT_TEXT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this"


def document(text: str = "", licence: str = "unknown") -> Document:
    return Document("1", "s", licence, "a.py", text=text)


def test_tables_hold_together() -> None:
    assert set(KNOWN).issuperset(ALIASES.values()) and set(KNOWN).issuperset(NOT_HUB_IDS)
    assert all(name == normalise_licence(name) for name in KNOWN)
    assert "mit" in PERMISSIVE_ONLY and "cc-by-4.0" in PERMISSIVE_ONLY and "gpl-3.0" not in PERMISSIVE_ONLY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# SPDX-License-Identifier: MIT\n" + GPL, "mit"),
        ("// SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */", "mit"),
        ("# SPDX-License-Identifier: LicenseRef-Mine\n", "licenseref-mine"),
        (APACHE, "apache-2.0"),
        (GPL, "gpl-3.0"),
        (GPL.replace("version 3", "version 2"), "gpl-2.0"),
        (GPL.replace("General", "Lesser General"), "lgpl-3.0"),
        (GPL.replace("General", "Affero General"), "agpl-3.0"),
        (BSD, "bsd-2-clause"),
        (BSD + "Neither the name of the author nor", "bsd-3-clause"),
        (BSD + "All advertising materials mentioning features", "bsd-4-clause"),
        ("# " + MIT_TEXT.replace("\n", "\n# "), "mit"),
        ("# This file is placed in the public domain.\n", "public-domain"),
        ("# Copyright (C) Firm. Unauthorized copying of this file is prohibited.", "proprietary"),
        ("# Licensed to PSF under a Contributor Agreement.", "psf-2.0"),
        ("import os\n\ndef licence():\n    return 'see there'\n", None),
        ("x = 1\n" * 1000 + APACHE, None),  # past the header
    ],
)
def test_a_header_says_the_licence(text: str, expected: str | None) -> None:
    assert of_header(text) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Apache-2.0", "apache-2.0"), ("GPL-2.0+", "gpl-2.0"), ("MIT AND GPL-3.0-or-later", "gpl-3.0"),
        ("MIT OR Apache-2.0", "mit"), ("GPL-3.0-only OR (MIT AND CC-BY-4.0)", "cc-by-4.0"),
        ("Foo-1.0 OR MIT", "mit"), ("Foo-1.0 AND MIT", "foo-1.0 and mit"),
    ],
)  # fmt: skip
def test_expressions(expression: str, expected: str) -> None:
    assert of_expression(expression) == expected


def test_a_repository_is_known_by_the_licence_files_at_its_root() -> None:
    assert of_repository({"LICENSE": MIT_TEXT, "src/LICENSE": GPL}) == "mit"
    assert of_repository({"LICENSE-MIT": MIT_TEXT, "COPYING": "GNU GENERAL PUBLIC LICENSE\nVersion 3"}) == "mit"
    assert of_repository({"COPYING.txt": "GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991"}) == "gpl-2.0"
    assert of_repository({"README.md": MIT_TEXT}) is None
    assert of_repository({"LICENSE": "Ask the author."}) is None


def test_the_header_goes_before_the_repository_and_that_before_the_source() -> None:
    assert licence_of(document(GPL, "MIT"), "apache-2.0") == "gpl-3.0"
    assert licence_of(document("x = 1", "MIT"), "apache-2.0") == "apache-2.0"
    assert licence_of(document("x = 1", "MIT")) == "mit"
    assert licence_of(document("x = 1")) is None


def test_allow_lists_drop_with_the_licences_name() -> None:
    allowed = check_allowed(["MIT", "Apache 2.0"])
    assert check(document(licence="MIT"), allowed) is None
    assert check(document(APACHE), allowed) is None
    assert check(document(GPL, "MIT"), allowed) == "licence_not_allowed:gpl-3.0"
    assert check(document(), allowed) == "licence_unknown"
    assert check(document("# SPDX-License-Identifier: Foo-1.0", "MIT"), allowed) == "licence_unknown"
    with pytest.raises(ValueError, match="'Foo' is no known licence"):
        check_allowed(["Foo"])


def test_only_what_was_kept_counts() -> None:
    mixed = {"web": {"mit": 10, "gpl-3.0": 0}, "library": {"psf-2.0": 5}}
    assert combine_counted("apache-2.0", mixed).identifier == "apache-2.0"
    shared = combine_counted("apache-2.0", {"web": {"mit": 10, "gpl-3.0": 1}})
    assert shared.identifier == "gpl-3.0" and "web [gpl-3.0]" in shared.sentence
    assert combine_counted("apache-2.0", {"web": {"unknown": 1}}).identifier == "other"
