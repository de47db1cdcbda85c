// The tariff in Java. With JDK 17 and Maven, in this directory:
//
//   mvn dependency:copy-dependencies
//   java -Dsun.net.httpserver.nodelay=true -cp 'target/dependency/*' Server.java 8000
//   cargo run --release --example polyglot -- --remote http://localhost:8000/

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import org.apache.flink.statefun.sdk.java.Context;
import org.apache.flink.statefun.sdk.java.StatefulFunctionSpec;
import org.apache.flink.statefun.sdk.java.StatefulFunctions;
import org.apache.flink.statefun.sdk.java.TypeName;
import org.apache.flink.statefun.sdk.java.ValueSpec;
import org.apache.flink.statefun.sdk.java.handler.RequestReplyHandler;
import org.apache.flink.statefun.sdk.java.message.EgressMessageBuilder;
import org.apache.flink.statefun.sdk.java.message.Message;
import org.apache.flink.statefun.sdk.java.message.MessageBuilder;
import org.apache.flink.statefun.sdk.java.slice.Slice;
import org.apache.flink.statefun.sdk.java.slice.Slices;

public final class Server {
  private static final int FREE_SECONDS = 20 * 60 * 60;
  private static final TypeName TARIFF = TypeName.typeNameFromString("phones/tariff");
  private static final TypeName NOTICES = TypeName.typeNameFromString("phones/notices");
  private static final ValueSpec<Integer> USED = ValueSpec.named("used").withIntType();

  private static CompletableFuture<Void> tariff(Context context, Message message) {
    int seconds = message.asInt();
    int used = context.storage().get(USED).orElse(0) + seconds;
    context.storage().set(USED, used);
    int beyond = Math.max(0, used - FREE_SECONDS);
    context.send(
        MessageBuilder.forAddress(context.caller().orElseThrow())
            .withValue(Math.min(seconds, beyond))
            .build());
    if (0 < beyond && beyond <= seconds) {
      context.send(
          EgressMessageBuilder.forEgress(NOTICES)
              .withValue("phone " + context.self().id() + ": the free hours are used up")
              .build());
    }
    return context.done();
  }

  public static void main(String[] arguments) throws IOException {
    int port = arguments.length > 0 ? Integer.parseInt(arguments[0]) : 8000;
    StatefulFunctions functions = new StatefulFunctions();
    functions.withStatefulFunction(
        StatefulFunctionSpec.builder(TARIFF)
            .withValueSpec(USED)
            .withSupplier(() -> Server::tariff));
    RequestReplyHandler handler = functions.requestReplyHandler();
    HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext("/", exchange -> answer(exchange, handler));
    server.start();
  }

  private static void answer(HttpExchange exchange, RequestReplyHandler handler)
      throws IOException {
    try (exchange) {
      byte[] request = exchange.getRequestBody().readAllBytes();
      Slice response = handler.handle(Slices.wrap(request)).exceptionally(failure -> null).join();
      if (response == null) {
        exchange.sendResponseHeaders(500, -1);
        return;
      }
      exchange.getResponseHeaders().set("Content-Type", "application/octet-stream");
      exchange.sendResponseHeaders(200, response.readableBytes());
      response.copyTo(exchange.getResponseBody());
    }
  }
}
