"""StateFun's greeter as its playground has it, with the playground's egress.

`functions.py [PORT]` serves it, on port 8000 if nothing else is said.
"""
import sys

from aiohttp import web
from statefun import (Context, IntType, Message, RequestReplyHandler, StatefulFunctions, ValueSpec,
                      egress_message_builder, make_json_type, message_builder)

functions = StatefulFunctions()

GREET_REQUEST_TYPE = make_json_type(typename='example/GreetRequest')
EGRESS_RECORD_TYPE = make_json_type(typename='io.statefun.playground/EgressRecord')


@functions.bind(typename='example/person', specs=[ValueSpec(name='visits', type=IntType)])
async def person(context: Context, message: Message):
    visits = (context.storage.visits or 0) + 1
    context.storage.visits = visits

    request = message.as_type(GREET_REQUEST_TYPE)
    request['visits'] = visits
    context.send(message_builder(target_typename='example/greeter',
                                 target_id=request['name'],
                                 value=request,
                                 value_type=GREET_REQUEST_TYPE))


@functions.bind(typename='example/greeter')
async def greeter(context: Context, message: Message):
    request = message.as_type(GREET_REQUEST_TYPE)
    greeting = greeting_of(request['name'], request['visits'])
    context.send_egress(egress_message_builder(
        target_typename='io.statefun.playground/egress',
        value={'topic': 'greetings', 'payload': greeting},
        value_type=EGRESS_RECORD_TYPE))


def greeting_of(name: str, visits: int) -> str:
    match visits:
        case 1: return f'Welcome {name}'
        case 2: return f'Nice to see you again {name}'
        case 3: return f'Third time is a charm {name}'
        case _: return f'Nice to see you at the {visits}-th time {name}!'


handler = RequestReplyHandler(functions)


async def handle(request):
    answer = await handler.handle_async(await request.read())
    return web.Response(body=answer, content_type='application/octet-stream')


if __name__ == '__main__':
    app = web.Application()
    app.add_routes([web.post('/statefun', handle)])
    web.run_app(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
