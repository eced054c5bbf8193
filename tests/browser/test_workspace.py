"""The workspace, used as a person would: look, click a patch, pull sliders, read what changes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]


def said(page: Page, panel: str) -> str:
    """What a panel says once its answer is complete."""
    page.locator(f"{panel} [aria-busy=false]").wait_for()
    return page.locator(panel).inner_text().strip()


def cells(page: Page) -> tuple[int, int]:
    cover = page.locator("#stage .cover")
    return int(cover.get_attribute("data-rows") or 0), int(cover.get_attribute("data-cols") or 0)


def click_patch(page: Page, row: int, col: int) -> None:
    rows, cols = cells(page)
    box = page.locator("#stage .cover").bounding_box()
    assert box
    place = {"x": (col + 0.5) * box["width"] / cols, "y": (row + 0.5) * box["height"] / rows}
    page.locator("#stage .cover").click(position=place)
    expect(page.locator("#cards h2")).to_have_text(f"Patch {row + 1}, {col + 1}")


def type_value(page: Page, row: int, value: str) -> None:
    box = page.locator("#bench .row").nth(row).locator("input[type=number]")
    box.fill(value)
    box.press("Enter")


def steer_hard(page: Page) -> str:
    """Put three neurons on the bench and pull them until the answer differs; the changed answer."""
    before = said(page, "#baseline")
    for i in range(3):
        page.locator("#cards .put").nth(i).click()
        expect(page.locator("#bench .row")).to_have_count(i + 1)
    for value in ("-100", "100", "-400", "400", "2000"):
        for i in range(3):
            page.locator("#bench .row").nth(i).locator("select").nth(1).select_option("all")
            type_value(page, i, value)
        for _ in range(40):
            page.wait_for_timeout(100)
            after = page.locator("#steered .text:not(.quiet)")
            busy = page.locator("#steered [aria-busy=true]").count()
            if not busy and after.count() and after.inner_text().strip() not in ("", before):
                return after.inner_text().strip()
    pytest.fail("no edit changed the answer")


def test_from_a_hallucination_to_a_steered_answer(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    shoot(page, "workspace-start")
    for key in ("lone-sheep", "phantom-fork"):
        page.locator(f"[data-with*={key}]").click()
        expect(page.locator(f"[data-with*={key}]")).to_have_attribute("aria-pressed", "true")
    assert said(page, "#baseline"), "a caption at once"
    assert page.locator("#cards .card").count() == 20
    assert page.locator("#cards .thumb img.heat").count() >= 20

    rows, cols = cells(page)
    assert rows >= 12 and cols >= 12
    click_patch(page, rows // 2, cols // 3)
    expect(page.locator("#stage .mark")).to_be_visible()
    expect(page.locator("#stage .heat")).to_be_visible()
    assert page.locator("#cards .card.chosen .thumb").count() > 6, "the chosen neuron shows all its exemplars"

    page.locator("#cards .put").first.click()
    row = page.locator("#bench .row").first
    expect(row).to_be_visible()
    expect(page.locator("#steered")).to_contain_text("slider")
    assert "moved" not in (row.get_attribute("class") or ""), "on the bench, and nothing changed yet"

    slider = row.locator("input[type=range]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#steered .text")).not_to_contain_text("slider")
    assert said(page, "#steered")
    assert "moved" in (row.get_attribute("class") or "")
    region = row.get_by_label("Region of")
    region.select_option("patch")
    expect(region.locator("option:checked")).to_have_text(f"at patch {rows // 2 + 1}, {cols // 3 + 1}")
    assert said(page, "#steered")
    row.get_by_label("Remove").click()
    expect(page.locator("#bench .row")).to_have_count(0)
    expect(page.locator("#steered")).to_contain_text("slider")

    changed = steer_hard(page)
    assert changed != said(page, "#baseline")
    assert page.locator("#steered ins, #baseline del").count() > 0, "changed words are marked"
    shoot(page, "workspace-steered")
    page.get_by_role("button", name="Reset all").click()
    expect(page.locator("#steered")).to_contain_text("slider")
    expect(page.locator("#baseline del")).to_have_count(0)


def test_a_dragged_slider_ends_on_its_last_place(visit: Visit) -> None:
    page = visit()
    page.locator("#cards .put").first.click()
    slider = page.locator("#bench .row input[type=range]").first
    box = slider.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(box["x"] + box["width"] * (0.5 - step / 50), y)
    page.mouse.up()
    assert float(page.locator("#bench .row input[type=number]").first.input_value()) < -60
    page.locator("#steered .text:not(.quiet)[aria-busy=false]").wait_for()


def test_neurons_and_patches_by_keyboard_and_the_way_back(visit: Visit) -> None:
    page = visit()
    page.locator("#stage .cover").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    rows, cols = cells(page)
    expect(page.locator("#cards h2")).to_have_text(f"Patch {rows // 2 + 3}, {cols // 2 + 1}")
    page.locator("#cards .back").click()
    expect(page.locator("#cards h2")).to_have_text("Whole picture")
    expect(page.locator("#stage .mark")).to_be_hidden()
    page.locator("#cards .choose").nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cards .card").nth(2)).to_have_class("card chosen")
    expect(page.locator("#stage .heat")).to_be_visible()
    page.locator("#cards [data-with*=max]").click()
    expect(page.locator("#cards [data-with*=max]")).to_have_attribute("aria-pressed", "true")


def test_questions_and_concepts(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    chip = page.locator("#questions .chip").nth(1)
    question = chip.inner_text()
    chip.click()
    expect(page.locator("#questions .chip").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#asker textarea, #asker input").first).to_have_value(question)
    assert said(page, "#baseline")
    page.locator("#finder textarea, #finder input").first.fill("cake")
    page.locator("#finder button").click()
    expect(page.locator("#cards h2")).to_have_text("“cake”")
    page.get_by_role("button", name="Put the best three on the bench").click()
    expect(page.locator("#bench .row")).to_have_count(3)
    region = page.locator("#bench .row").first.get_by_label("Region of")
    expect(region.locator("option", has_text="where cake is seen")).to_have_count(1)
    region.select_option("seen")
    type_value(page, 0, "-15")
    page.locator("#steered .text:not(.quiet)[aria-busy=false]").wait_for()
    shoot(page, "workspace-found")


REFUSALS = {
    "text": "not a picture",
    "empty": "0 bytes",
    "cut": "cut short",
    "vast": "megapixels",
}


def damaged(folder: Path) -> dict[str, Path]:
    """Files that look like pictures and are none."""
    whole = folder / "whole.png"
    Image.effect_noise((300, 200), 80).save(whole)
    files = {"text": b"this is no picture", "empty": b"", "cut": whole.read_bytes()[:2000]}
    header = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + whole.read_bytes()[24:29]
    checked = header + zlib.crc32(header).to_bytes(4, "big")
    files["vast"] = whole.read_bytes()[:12] + checked + whole.read_bytes()[33:]
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
    return {name: folder / f"{name}.png" for name in files}


def upload(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def test_bad_uploads_are_refused_in_plain_words_and_good_ones_shown(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    photo = page.locator("#stage .photo")
    former = photo.get_attribute("src") or ""
    for name, path in damaged(tmp_path).items():
        upload(page, path)
        toast = page.locator(".toast-body").first
        toast.wait_for()
        words = toast.inner_text()
        assert REFUSALS[name] in words, words
        page.locator(".toast-close").first.click()
        expect(page.locator(".toast-body")).to_have_count(0)
        assert photo.get_attribute("src") == former, "the former picture stays"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((320, 160)).convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    upload(page, tmp_path / "turned.jpg")
    expect(photo).not_to_have_attribute("src", former)
    expect(page.locator("#stage .stage")).to_have_attribute("style", "aspect-ratio:160/320;--ratio:0.5000")
    assert said(page, "#baseline")
    assert page.locator("#cards .card").count() > 0


def test_two_visitors_see_only_their_own(visit: Visit) -> None:
    one, two = visit(), visit()
    one.locator("[data-with*=farmyard]").click()
    expect(one.locator("[data-with*=farmyard]")).to_have_attribute("aria-pressed", "true")
    one.locator("#cards .put").first.click()
    expect(one.locator("#bench .row")).to_have_count(1)
    click_patch(two, 1, 1)
    expect(two.locator("[data-with*=phantom-fork]")).to_have_attribute("aria-pressed", "true")
    expect(two.locator("#bench .row")).to_have_count(0)
    expect(one.locator("#cards h2")).to_have_text("Whole picture")
    photos = {page.locator("#stage .photo").get_attribute("src") for page in (one, two)}
    assert len(photos) == 2


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("workspace-dark", {"color_scheme": "dark"}),
        ("workspace-phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True}),
        ("workspace-wide", {"viewport": {"width": 1920, "height": 1080}}),
    ],
)
def test_it_fits_the_screen(visit: Visit, shoot: Shoot, name: str, how: dict) -> None:
    page = visit(**how)
    page.locator("#cards .choose").first.click()
    page.locator("#cards .put").first.click()
    expect(page.locator("#bench .row")).to_have_count(1)
    type_value(page, 0, "-60")
    page.locator("#steered .text:not(.quiet)[aria-busy=false]").wait_for()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "nothing sticks out to the side"
    hidden = "[...document.querySelectorAll('#bench button, #bench select')].filter(e => {"
    hidden += "const r = e.getBoundingClientRect(); return r.right > innerWidth || r.left < 0 }).length"
    assert page.evaluate(hidden) == 0
    shoot(page, name)
