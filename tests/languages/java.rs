//! Java.

use serde_json::json;

use crate::case::{Case, code, files, run};
use crate::common::{Failure, Programs, cases};

const PROGRAMS: Programs = Programs {
    hello: r#"
public class Main {
    public static void main(String[] args) { System.out.println("Hello, World!"); }
}
"#,
    echo: r#"
class Main {
    public static void main(String[] args) throws Exception { System.in.transferTo(System.out); System.out.flush(); }
}
"#,
    lines: r#"
import java.io.*;
class Main {
    public static void main(String[] args) throws IOException {
        var in = new BufferedReader(new InputStreamReader(System.in));
        int n = 0;
        for (String line; (line = in.readLine()) != null; ) System.out.println(++n + ":" + line);
    }
}
"#,
    args: r#"
class Main {
    public static void main(String[] args) { for (String arg : args) System.out.println("[" + arg + "]"); }
}
"#,
    two_files: [
        (
            "Main.java",
            "class Main { public static void main(String[] a) { System.out.println(\"4 + 5 = \" + Calculator.add(4, 5)); } }",
        ),
        ("Calculator.java", "public class Calculator { static int add(int a, int b) { return a + b; } }"),
    ],
    unicode: r#"
import java.util.Scanner;
class Größe {
    public static void main(String[] args) {
        System.out.println("ünï→🎉");
        String line = new Scanner(System.in).nextLine();
        System.out.println(line);
        System.out.println(new StringBuilder(line).reverse().reverse());
    }
}
"#,
    broken: "class Main {\n    public static void main(String[] a) { int x = \"text\"; }\n}\n",
    complaint: "Main.java:2: error: incompatible types: String cannot be converted to int\n",
    exit_3: r#"
class Main {
    public static void main(String[] args) { System.out.println("out"); System.err.println("err"); System.exit(3); }
}
"#,
    failing: "class Main {\n\
              static void fail() { throw new IllegalStateException(\"boom\"); }\n\
              public static void main(String[] a) {\n\
              System.out.println(\"before\");\n\
              fail();\n\
              }\n}\n",
    failure: Failure::Says(
        "Exception in thread \"main\" java.lang.IllegalStateException: boom\n\
         \tat Main.fail(Main.java:2)\n\tat Main.main(Main.java:5)\n",
    ),
    endless: "class Main { public static void main(String[] a) { System.out.println(\"before\"); while (true); } }",
    hog: r#"
import java.util.*;
class Main {
    public static void main(String[] args) {
        System.out.println("before");
        List<byte[]> kept = new ArrayList<>();
        while (true) kept.add(new byte[1 << 20]);
    }
}
"#,
    flood: "class Main { public static void main(String[] a) { while (true) System.out.println(\"0123456789\"); } }",
    network: r#"
import java.io.IOException;
import java.net.*;
class Main {
    interface Attempt { void make() throws IOException; }
    static void tell(String what, Attempt attempt) {
        try { attempt.make(); System.out.println(what + " yes"); }
        catch (IOException e) { System.out.println(what + " no"); }
    }
    static void itself() throws IOException {
        var server = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
        var client = new Socket(server.getInetAddress(), server.getLocalPort());
        server.accept().getOutputStream().write('x');
        if (client.getInputStream().read() != 'x') throw new IOException();
    }
    public static void main(String[] args) {
        tell("outside", () -> new Socket().connect(new InetSocketAddress("1.1.1.1", 80), 5000));
        tell("names", () -> InetAddress.getByName("example.com"));
        tell("itself", Main::itself);
    }
}
"#,
    create: r#"
import java.io.*;
import java.util.Scanner;
class Main {
    public static void main(String[] args) {
        for (var names = new Scanner(System.in); names.hasNextLine(); ) {
            String name = names.nextLine();
            try (var file = new FileWriter(name)) { file.write("x"); System.out.println(name + " yes"); }
            catch (IOException e) { System.out.println(name + " no"); }
        }
    }
}
"#,
    bomb: r#"
class Main {
    public static void main(String[] args) {
        while (true) {
            new Thread(() -> { while (true) try { Thread.sleep(1000); } catch (InterruptedException e) {} }).start();
        }
    }
}
"#,
};

#[test]
fn java_programs_run_as_by_the_plain_command() {
    let mut all = special();
    all.extend(memory());
    all.extend(cases(&PROGRAMS, true));
    run("java", &all);
}

/// A class that prints its name.
fn named(declaration: &str, printed: &str) -> String {
    format!(
        "{declaration} {{ public static void main(String[] a) {{ System.out.println(\"{printed}\"); }} }}"
    )
}

fn special() -> Vec<Case> {
    vec![
        code("a class by another name that is not public", &named("class Whatever", "x")).prints("x\n"),
        code("a public class by another name", &named("public class Foo", "Foo")).prints("Foo\n"),
        code("a package", &named("package a.b;\npublic class Foo", "a.b")).prints("a.b\n"),
        code(
            "main in the second class",
            &format!("class First {{ int x; }}\n{}", named("class Second", "second")),
        )
        .prints("second\n"),
        code("main in an enum", &named("enum E", "enum").replacen('{', "{ A, B;", 1)).prints("enum\n"),
        code(
            "numbers by Scanner",
            "import java.util.*;\npublic class Sum { public static void main(String[] a) {\n\
             Scanner in = new Scanner(System.in); int n = in.nextInt(); double sum = 0;\n\
             while (n-- > 0) sum += in.nextDouble();\nSystem.out.printf(\"%.2f%n\", sum); } }",
        )
        .with("input", "3\n1.5 2\n0.25\n")
        .prints("3.75\n"),
        files(
            "package folders",
            &[
                (
                    "app/Main.java",
                    "package app;\nimport shapes.Square;\npublic class Main {\n\
                     public static void main(String[] a) { System.out.println(new Square(3).area()); } }",
                ),
                ("shapes/Square.java", "package shapes;\npublic record Square(int side) { public int area() { return side * side; } }"),
            ],
        )
        .prints("9\n"),
        code(
            "leaving from another thread",
            "class A { public static void main(String[] a) throws Exception {\n\
             System.out.println(\"before\");\n\
             Thread t = new Thread(() -> System.exit(3)); t.start(); t.join(); Thread.sleep(1000000); } }",
        )
        .exits(3)
        .is("/stdout", "before\n"),
        code("no main at all", "class A { int x; }").exits(1).has("/stderr", "Main method not found in class A"),
        code(
            "a warning of the compiler's",
            "import java.util.*;\nclass A { public static void main(String[] a) {\n\
             List raw = new ArrayList(); raw.add(1); System.out.println(raw); } }",
        )
        .prints("[1]\n")
        .has("/compile/stderr", "unchecked"),
        code(
            "threads",
            "import java.util.stream.*;\nclass A { public static void main(String[] a) throws Exception {\n\
             var pool = java.util.concurrent.Executors.newFixedThreadPool(8); int sum = 0;\n\
             var found = IntStream.range(0, 20).mapToObj(n -> pool.submit(() -> n)).collect(Collectors.toList());\n\
             for (var one : found) sum += one.get();\nSystem.out.println(sum); pool.shutdown(); } }",
        )
        .prints("190\n"),
    ]
}

/// The heap has no limit but the container's, and yet garbage is collected before that one is reached.
fn memory() -> Vec<Case> {
    let long = json!({ "wallTime": 60_000, "cpuTime": 60_000 });
    let churn = |live: u32| {
        format!(
            "import java.util.*;\nclass A {{ public static void main(String[] a) {{\n\
             byte[][] kept = new byte[{live} * 512][]; Random random = new Random(1);\n\
             for (int i = 0; i < kept.length; i++) kept[i] = new byte[2032];\n\
             for (int i = 0; i < 600_000; i++) kept[random.nextInt(kept.length)] = new byte[2032];\n\
             System.out.println(kept.length); }} }}"
        )
    };
    let hog = |declaration: &str, step: &str| {
        format!(
            "import java.util.*;\nclass A {{ public static void main(String[] a) {{\n\
             {declaration}\nfor (int i = 0; ; i++) {step} }} }}"
        )
    };
    let grows = |what, program: String| {
        code(what, &program).with("limits", long.clone()).is("/status", "memory_limit").is("/stderr", "")
    };
    vec![
        // More than a gigabyte of garbage each.
        code("much garbage, 50 MiB alive", &churn(50)).with("limits", long.clone()).prints("25600\n"),
        code("much garbage, 300 MiB alive", &churn(300)).with("limits", long.clone()).prints("153600\n"),
        // Growing arrays need a large piece at once, which must not end in an OutOfMemoryError of the JVM's own.
        grows("a growing list", hog("List<Integer> list = new ArrayList<>();", "list.add(i);")),
        grows("a growing text", hog("var text = new StringBuilder();", "text.append(\"0123456789\");")),
        grows("a growing map", hog("Map<Integer, String> map = new HashMap<>();", "map.put(i, \"v\" + i);")),
    ]
}
