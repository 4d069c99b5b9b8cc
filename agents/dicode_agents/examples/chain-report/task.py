def main(params, input):
    readings = input["readings"]
    return {"station": params.get("station"), "highest": max(readings), "count": len(readings)}
