"""What tests of the pages do in a browser: waiting for something, reading it."""

from collections.abc import Callable
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 60.0  # seconds; a machine may have other work


def wait(
    driver: webdriver.Chrome, until: Callable[[webdriver.Chrome], Any], patience: float = PATIENCE
) -> Any:
    """What `until` gives once it gives something; elements may come, go and come again."""
    ignored = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(driver, patience, 0.2, ignored).until(until)


def text_of(selector: str) -> Callable[[webdriver.Chrome], str]:
    """The text of the first element that fits."""
    return lambda driver: driver.find_element(By.CSS_SELECTOR, selector).text


def click(driver: webdriver.Chrome, selector: str) -> None:
    """Click the first element that fits, wherever on the page it is."""
    element = wait(driver, lambda d: d.find_element(By.CSS_SELECTOR, selector))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def drawn(driver: webdriver.Chrome) -> bool:
    """Whether every plot of the page is there, or says why not."""
    script = """return [...document.querySelectorAll('[data-plot]')].every(
        (e) => e.querySelector('.main-svg') || e.classList.contains('muted'))"""
    return bool(driver.execute_script(script))
