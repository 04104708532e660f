"""A small web shop for the sample fleet: eight pages of messy HTML whose prices change over time.

Prices depend on nothing but the product and the time (a tick lasts SHOP_TICK_S seconds), so that a
restart finds the same shop. `SHOP_TICK` holds the time still, for tests.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TICK_S = float(os.environ.get("SHOP_TICK_S", "20"))
HEAD = '<!doctype html><html><head><title>{name} | Lampenhaus</title></head><body><div id="top">Lampenhaus · free shipping from 150 EUR · call 040 555 2210</div><h1 class="p-title">{name}</h1>'
FOOT = '<div class="also">Others bought: bulb E27 <s>9.90</s> 6.90 · cable 3 m 14.50</div></body></html>'

PRODUCTS: dict[str, tuple[str, str, str]] = {
    # what stands in the address: name, usual price, how this page shows it
    "brass-210": (
        "Brass desk lamp BR-210",
        "89.00",
        '<script type="application/ld+json">{{"@type": "Product", "offers": {{"price": "{price}", "priceCurrency": "EUR"}}}}</script><p>see basket for price</p>',
    ),
    "kiel-floor": (
        "Kiel floor lamp",
        "189.00",
        '<p class="old"><s>219,00 €</s></p><p class="now">{comma} €</p>',
    ),
    "lyon-pendant": (
        "Lyon pendant",
        "124.50",
        '<b class="major">{whole}</b><sup class="minor">{cents}</sup> <i>EUR</i>',
    ),
    "theatre": (
        "Theatre spot, restored",
        "1299.00",
        "<td>our price</td><td>{grouped} EUR, VAT included</td>",
    ),
    "reading": (
        "Reading lamp No. 4",
        "59.90",
        '<div data-sku="4417" data-price-cents="{in_cents}">add to basket</div>',
    ),
    "wl-3": (
        "Wall light WL-3",
        "64.00",
        '<meta itemprop="price" content="{price}"><span>only {price}!</span>',
    ),
    "open-sign": ("Sign lamp Open", "149.00", "<p>Sorry, sold out. Back in spring.</p>"),
    "bulb-e14": (
        "Warm bulb E14, pack of ten",
        "32.40",
        "<ul><li>10 pieces<li>each {each} EUR<li>pack: EUR {price}</ul>",
    ),
}


def tick_now() -> int:
    fixed = os.environ.get("SHOP_TICK")
    return int(fixed) if fixed else int(time.time() // TICK_S)


def price_at(slug: str, tick: int) -> Decimal:
    """Return the price at a time: every third tick or so it moves by up to 15 percent of the usual."""
    usual = Decimal(PRODUCTS[slug][1])
    for back in range(12):
        moved = _draw(slug, tick - back)
        if moved % 3 == 0:
            return (
                (usual * (100 + moved // 3 % 31 - 15) / 100)
                .quantize(Decimal("0.1"))
                .quantize(Decimal("0.01"))
            )
    return usual


def in_stock(slug: str) -> bool:
    return "sold out" not in PRODUCTS[slug][2]


def page(slug: str, tick: int) -> str:
    name, _, body = PRODUCTS[slug]
    price = price_at(slug, tick)
    whole, cents = str(price).split(".")
    values = {
        "price": price,
        "comma": f"{whole},{cents}",
        "whole": whole,
        "cents": cents,
        "grouped": f"{int(whole):,}".replace(",", ".") + f",{cents}",
        "in_cents": whole + cents,
        "each": (price / 10).quantize(Decimal("0.01")),
    }
    return HEAD.format(name=name) + body.format(**values) + FOOT


def _draw(slug: str, tick: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{slug}:{tick}".encode()).digest()[:4], "big")


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        slug = self.path.strip("/")
        known = slug in PRODUCTS
        body = (page(slug, tick_now()) if known else "no such product").encode()
        self.send_response(200 if known else 404)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        del args  # a visit is no news


def open_shop() -> str:
    """Open the shop in a thread of this process, on a port of the system's choice. Returns its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    threading.Thread(target=server.serve_forever, name="shop", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
