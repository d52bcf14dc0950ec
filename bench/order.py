"""The mail that everybody sends: an order confirmation of five items, HTML and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
SENDER = "Acme Outfitters <orders@acme.example>"
SUBJECT = "Your order {number} is confirmed"


def order(number: int) -> dict[str, Any]:
    """The context of one mail: some 1.3 kB as JSON, made of plain types."""
    items = [
        {
            "name": f"Merino crew-neck jumper no. {n}",
            "sku": f"MCN-{number:06d}-{n}",
            "details": "Navy blue, size L, gift-wrapped with a handwritten card",
            "image": f"https://cdn.acme.example/products/mcn/{number % 97}/{n}/thumbnail@2x.jpg",
            "quantity": n + 1,
            "price": round(39.9 + n, 2),
        }
        for n in range(5)
    ]
    total = round(sum(item["quantity"] * item["price"] for item in items), 2)
    return {
        "customer": {"name": "Zoë Lovelace", "street": "12 St James's Square", "city": "London SW1Y 4JH"},
        "order": {"number": f"A-{number:07d}", "date": "23 November 2026", "total": total, "shipping": 4.9},
        "items": items,
        "link": f"https://shop.acme.example/orders/A-{number:07d}?ref=confirmation",
    }
