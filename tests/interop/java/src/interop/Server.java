package interop;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.flink.statefun.sdk.java.handler.RequestReplyHandler;
import org.apache.flink.statefun.sdk.java.slice.Slice;
import org.apache.flink.statefun.sdk.java.slice.Slices;

/**
 * Serves the functions that every language's server serves, with the Java SDK of Stateful Functions.
 *
 * <p>It is started with --port (default 0: the system chooses) and --version (1 or 2), prints "listening
 * on PORT", and ends when its standard input does.
 */
public final class Server {
  private static final int THREADS = 16;

  public static void main(String[] arguments) throws IOException {
    int port = 0;
    int version = 1;
    for (int at = 0; at < arguments.length; at += 2) {
      if (at + 1 == arguments.length) {
        throw new IllegalArgumentException(arguments[at] + " needs a value");
      }
      int value = Integer.parseInt(arguments[at + 1]);
      switch (arguments[at]) {
        case "--port" -> port = value;
        case "--version" -> version = value;
        default -> throw new IllegalArgumentException("unknown option: " + arguments[at]);
      }
    }
    AtomicInteger requests = new AtomicInteger();
    RequestReplyHandler handler = Functions.of(version, requests::get).requestReplyHandler();

    HttpServer server =
        HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 1024);
    server.setExecutor(Executors.newFixedThreadPool(THREADS));
    server.createContext("/", exchange -> serve(exchange, handler, requests));
    server.start();
    System.out.println("listening on " + server.getAddress().getPort());
    System.out.flush();

    System.in.transferTo(java.io.OutputStream.nullOutputStream());
    System.exit(0);
  }

  private static void serve(HttpExchange exchange, RequestReplyHandler handler, AtomicInteger requests)
      throws IOException {
    if (!exchange.getRequestMethod().equals("POST")) {
      answer(exchange, 405, null);
      return;
    }
    requests.incrementAndGet();
    Slice request;
    try (InputStream body = exchange.getRequestBody()) {
      request = Slices.wrap(body.readAllBytes());
    }
    handler
        .handle(request)
        .whenComplete(
            (response, failure) -> {
              if (failure != null) {
                System.err.println(failure);
              }
              answer(exchange, failure == null ? 200 : 500, response);
            });
  }

  /** Answers, and lets go of the connection if there is nobody left to answer. */
  private static void answer(HttpExchange exchange, int status, Slice body) {
    try (exchange) {
      exchange.getResponseHeaders().set("Content-Type", "application/octet-stream");
      int length = body == null ? 0 : body.readableBytes();
      exchange.sendResponseHeaders(status, length == 0 ? -1 : length);
      if (length != 0) {
        body.copyTo(exchange.getResponseBody());
      }
    } catch (IOException gone) {
      System.err.println(gone);
    }
  }
}
