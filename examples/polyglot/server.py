# The tariff in Python. With Python 3.10 to 3.13, in this directory:
#
#   pip install apache-flink-statefun==3.3.0 protobuf==3.20.3 aiohttp
#   python server.py 8000
#   cargo run --release --example polyglot -- --remote http://localhost:8000/

import sys

from aiohttp import web
from statefun import (IntType, RequestReplyHandler, StatefulFunctions, StringType, ValueSpec,
                      egress_message_builder, message_builder)

FREE_SECONDS = 20 * 60 * 60

functions = StatefulFunctions()


@functions.bind("phones/tariff", specs=[ValueSpec("used", IntType)])
def tariff(context, message):
    seconds = message.as_int()
    used = (context.storage.used or 0) + seconds
    context.storage.used = used
    beyond = max(0, used - FREE_SECONDS)
    caller = context.caller
    context.send(message_builder(caller.typename, caller.id, int_value=min(seconds, beyond)))
    if 0 < beyond <= seconds:
        notice = f"phone {context.address.id}: the free hours are used up"
        context.send_egress(egress_message_builder("phones/notices", notice, StringType))


handler = RequestReplyHandler(functions)


async def answer(request):
    response = await handler.handle_async(await request.read())
    return web.Response(body=response, content_type="application/octet-stream")


app = web.Application()
app.add_routes([web.post("/", answer)])
web.run_app(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
