"""A newcomer at the sandbox's page, in a real browser: types, clicks, and sees the devices stop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.sandbox.server import Sandbox, sandbox
from bot.workflow.means import Timings
from tests.conftest import MUST_RUN_ALL

CHROMIUM = os.environ.get("OTABRAKE_TEST_CHROMIUM", "/usr/bin/chromium")
HAS_CHROMIUM = Path(CHROMIUM).exists()
SCREENSHOTS = os.environ.get("OTABRAKE_TEST_SCREENSHOTS")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
COMMAND = "/ota cancel 7glPHmaDYLAYMD1HHutT02 because 4.2.1 bricks gateways"
SECONDS = 30_000
DRAINED = 100_000
"""Devices that ignore the cancel are watched until they are through, in real time."""

pytestmark = pytest.mark.browser


@pytest.fixture
async def at() -> AsyncIterator[Sandbox]:
    async with sandbox(timings=Timings(poll_seconds=0.2, progress_seconds=0.5)) as made:
        yield made


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    if not MUST_RUN_ALL and not HAS_CHROMIUM:
        pytest.skip("no Chromium at OTABRAKE_TEST_CHROMIUM")
    if MUST_RUN_ALL:
        from playwright import async_api
    else:
        async_api = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    async with async_api.async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        await made.close()


async def keep(page: Any, name: str) -> None:
    if SCREENSHOTS:
        await page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("width", "height"), [(1280, 860), (390, 844)], ids=["desk", "phone"])
async def test_a_newcomer_cancels_a_rollout_and_sees_the_fleet_stop(
    at: Sandbox, browser: Any, width: int, height: int
) -> None:
    page = await browser.new_page(viewport={"width": width, "height": height})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(at.slack_url)
    composer = page.get_by_role("textbox").first
    await composer.fill(COMMAND)
    await composer.press("Enter")
    confirm = page.get_by_role("button", name="Cancel ≈")
    await confirm.wait_for(timeout=SECONDS)
    assert at.fleet.history == []
    await keep(page, f"offered-{width}")
    await confirm.click()
    await page.get_by_text("finished anyway").first.wait_for(timeout=DRAINED)
    await keep(page, f"stopped-{width}")
    assert [effect.action for effect in at.fleet.history] == ["CancelOTATaskByJob"]
    assert await confirm.count() == 0
    assert complaints == []


async def test_somebody_who_may_not_is_told_so_where_only_they_see_it(at: Sandbox, browser: Any) -> None:
    page = await browser.new_page(viewport={"width": 1280, "height": 860})
    await page.goto(at.slack_url)
    await page.get_by_role("combobox").first.select_option("U0MEMBER01")
    composer = page.get_by_role("textbox").first
    await composer.fill(COMMAND)
    await composer.press("Enter")
    await page.get_by_text("the policy does not allow").first.wait_for(timeout=SECONDS)
    assert await page.get_by_text("Only visible to you").count() >= 1
    await keep(page, "denied")
    assert at.fleet.history == []
