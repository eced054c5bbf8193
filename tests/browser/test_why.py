"""Why does the model say this? From a word to a repaired caption; words by neurons; sweeps."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]


def words(page: Page, panel: str) -> str:
    page.locator(f"{panel} [aria-busy=false]").wait_for()
    return page.locator(panel).inner_text()


def look_closer(page: Page) -> None:
    page.locator("#why-panel > button").click()
    page.locator("#why-map").wait_for()


def test_a_click_on_a_word_and_one_on_a_repair_mend_the_caption(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    asked = "fork" if "fork" in words(page, "#baseline") else ""
    page.locator("#baseline .word", has_text=asked).last.click()
    expect(page.locator("#cards h2")).to_have_text(re.compile("^Why “"))
    expect(page.locator("#cards .card").first).to_be_visible()
    page.locator("#cards .mend").first.wait_for()
    page.locator("#cards .halt").click()
    expect(page.locator("#cards .halt")).to_have_count(0)
    shoot(page, "why-repairs")
    page.locator("#cards .mend").first.click()
    page.locator("#bench .row").first.wait_for()
    expect(page.locator("#baseline del").first).to_be_visible()
    after = words(page, "#steered")
    shoot(page, "why-repaired")
    if asked:
        assert "fork" not in after and "knife" not in after and "cake" in after


def test_a_cell_and_a_group_go_onto_the_bench(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    look_closer(page)
    page.locator("#why-map").click()
    cells = page.locator("#why-grid .wm-cell")
    cells.first.wait_for()
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cells.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#stage .heat")).to_be_visible()
    page.locator("#why-grid .wm-told [data-do=put]").click()
    expect(page.locator("#bench .row")).to_have_count(1)
    page.locator("#why-grid [data-measure=attention]").click()
    expect(page.locator("#why-grid .wordmap")).to_have_attribute("data-by", "attention")
    groups = page.locator("#why-grid .wm-group")
    page.locator("#why-grid [data-measure=effect]").click()
    groups.first.click()
    expect(page.locator("#bench .row").nth(1)).to_be_visible()
    assert page.locator("#bench .row").count() <= 24
    shoot(page, "why-words")


def test_an_alpha_sweep_is_drawn_and_a_new_picture_clears_it(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    look_closer(page)
    page.get_by_role("tab", name="Alpha sweep").click()
    expect(page.locator("#why-panel input[aria-label=Neuron]")).not_to_have_value("")
    page.locator("#why-sweep").click()
    page.locator("#why-alpha-captions tbody tr").first.wait_for()
    expect(page.locator("#why-alpha-chart .scatterlayer .trace").first).to_be_visible()
    shoot(page, "why-alpha")
    page.locator("[data-with*=lone-sheep]").click()
    expect(page.locator("#why-alpha-captions tbody tr")).to_have_count(0)


def test_a_noise_sweep_can_be_stopped(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    look_closer(page)
    page.get_by_role("tab", name="Noise sweep").click()
    page.locator("#why-shake").click()
    expect(page.locator("#why-noise-status progress")).to_have_attribute("value", re.compile("[1-9]"))
    page.locator("#why-noise-status .halt").click()
    expect(page.locator("#why-noise-status")).to_contain_text("Stopped after")
    page.locator("#why-noise-captions tbody tr").first.wait_for()
    expect(page.locator("#why-noise-replaced .scatterlayer .trace").first).to_be_visible()
    shoot(page, "why-noise")


def test_the_panel_fits_a_phone(visit: Visit, shoot: Shoot) -> None:
    page = visit(viewport={"width": 390, "height": 844})
    look_closer(page)
    page.locator("#why-map").click()
    page.locator("#why-grid .wm-cell").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "the page does not scroll sideways"
    )
    shoot(page, "why-phone")
