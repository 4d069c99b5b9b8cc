from dicode_sdk import log, params


def parse_price(text):
    amount, currency = text.split()
    return {"amount": float(amount), "currency": currency}


def main():
    text = params.get("price")
    log.info("reading the price", repr(text))
    return parse_price(text)
