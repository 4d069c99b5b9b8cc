from dicode_sdk import output, params


def main():
    values = params.all()
    rows = [f"{name}: {value!r} ({type(value).__name__})" for name, value in values.items()]
    output.text("\n".join(rows))
    return values
