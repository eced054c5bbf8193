"""A closer look at the picture, as a person takes it: wheel, keys, fingers; strokes on fine grids."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

Visit = Callable[..., Page]

FACTOR = "Number(getComputedStyle(document.querySelector('#stage .figure')).getPropertyValue('--zoom'))"


def factor(page: Page) -> float:
    """How many times as large the picture is shown; 0 before any look."""
    return page.evaluate(FACTOR)


def edges(part: Locator) -> dict[str, float]:
    box = part.bounding_box()
    assert box
    return box


def heading(page: Page) -> Locator:
    return page.locator("#cards h2")


def test_wheel_and_keys_look_closer_and_the_pointer_stays_on_its_patch(visit: Visit) -> None:
    page = visit()
    over, cover, here = (page.locator(f"#stage .{name}") for name in ("over", "cover", "here"))
    page.locator("#cards .choose").first.click()
    expect(page.locator("#stage .heat")).to_be_visible()
    photo, shown = page.locator("#stage .photo"), edges(over)
    whole, at = edges(cover), (shown["x"] + shown["width"] * 0.3, shown["y"] + shown["height"] * 0.6)
    page.mouse.move(*at)
    said = here.inner_text()
    assert said.startswith("Row 9, column 5: ")
    page.mouse.wheel(0, 40)
    page.wait_for_function("scrollY > 0")
    assert factor(page) == 1, "without Ctrl the page scrolls"
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(*at)
    page.keyboard.down("Control")
    for _ in range(5):
        page.mouse.wheel(0, -60)
    page.keyboard.up("Control")
    page.wait_for_function(f"{FACTOR} >= 4")
    assert factor(page) == pytest.approx(4, rel=0.01), "no closer than a patch can be hit"
    assert here.inner_text() == said and edges(over) == shown
    assert edges(cover)["width"] == pytest.approx(4 * whole["width"], rel=0.01)
    assert edges(photo) == pytest.approx(edges(cover), abs=1), "photo and heat stay together"
    page.mouse.click(*at)
    expect(heading(page)).to_have_text("Patch 9, 5")
    assert factor(page) == pytest.approx(4, rel=0.01), "what the server draws anew leaves it as it is"
    expect(page.locator("#stage [data-zoom=in]")).to_be_disabled()

    before, scrolled = edges(cover), page.evaluate("scrollY")
    page.mouse.wheel(30, 50)
    page.wait_for_function(
        f"document.querySelector('#stage .cover').getBoundingClientRect().y < {before['y']}"
    )
    after = edges(cover)
    assert (before["x"] - after["x"], before["y"] - after["y"]) == pytest.approx((30, 50), abs=1)
    assert page.evaluate("scrollY") == scrolled

    cover.focus()
    page.keyboard.press("End")
    expect(here).to_contain_text("column 14")
    far = edges(cover)
    assert far["x"] + far["width"] == pytest.approx(shown["x"] + shown["width"], abs=1), "keys lead the view"
    page.keyboard.press("0")
    assert factor(page) == 1 and edges(cover) == pytest.approx(whole, abs=1)
    page.keyboard.press("+")
    assert factor(page) == pytest.approx(1.5)
    page.locator("#stage [data-zoom=in]").click()
    assert factor(page) == pytest.approx(3)
    expect(page.locator("#stage .part")).to_be_visible()
    former = photo.get_attribute("src") or ""
    page.locator("#shelf button").nth(1).click()
    expect(photo).not_to_have_attribute("src", former)
    page.wait_for_function(f"{FACTOR} === 1")
    expect(page.locator("#stage .part")).to_be_hidden()


def test_two_fingers_look_closer_and_one_marks(visit: Visit) -> None:
    page = visit(viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True)
    page.locator("#stage .over").scroll_into_view_if_needed()
    box, session = edges(page.locator("#stage .over")), page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - 20, y))
    touch("touchStart", (x - 20, y), (x + 20, y))
    for apart in (30, 40, 50, 60):
        touch("touchMove", (x - apart, y), (x + apart, y))
    touch("touchEnd")
    assert factor(page) == pytest.approx(3, rel=0.05)
    assert page.evaluate("visualViewport.scale") == 1, "the picture is enlarged, not the page"
    assert heading(page).inner_text() == "Whole picture", "no finger has marked anything"
    touch("touchStart", (x, y))
    touch("touchEnd")
    expect(heading(page)).to_have_text("Patch 8, 8")
    expect(page.locator("#stage .here")).to_contain_text("Row 8, column 8")


def test_strokes_on_a_fine_grid_are_wide_and_clicks_exact(visit: Visit) -> None:
    page = visit()
    cover = page.locator("#stage .cover")
    path = page.locator("#stage .marks .inner")
    cover.evaluate("(area) => Object.assign(area.dataset, { rows: 126, cols: 126 })")
    box = edges(cover)
    cell = box["width"] / 126
    place = (box["x"] + 60.5 * cell, box["y"] + 60.5 * cell)
    page.mouse.move(*place)
    page.mouse.down()
    assert path.get_attribute("d") == "M60 60h1M60 61h1M60 60v1M61 60v1", "one patch, however small"
    page.mouse.move(place[0] + 10 * cell, place[1], steps=4)
    drawn = path.get_attribute("d") or ""
    assert drawn.count("h1") == 2 * (10 + 5) and drawn.count("v1") == 2 * 5
    cover.focus()
    page.keyboard.press("Escape")
    assert path.get_attribute("d") == ""
    page.mouse.up()
    assert heading(page).inner_text() == "Whole picture"
