import itertools
import time

from dicode_sdk import log, params

for tick in itertools.count(1):
    log.info("tick", tick)
    time.sleep(params.get("seconds"))
