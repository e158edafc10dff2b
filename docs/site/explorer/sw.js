// Keeps the explorer for use offline. build.py writes in what belongs to it, and a version that changes with any of it.
const VERSION = "";
const FILES = [];
const PREFIX = "dogs-explorer-";

self.oninstall = (event) => {
  const fresh = FILES.map((file) => new Request(file, { cache: "no-cache" })); // asks whether it changed; not for it again
  event.waitUntil(caches.open(PREFIX + VERSION).then((cache) => cache.addAll(fresh)));
};

self.onactivate = (event) => {
  const old = (name) => name.startsWith(PREFIX) && name !== PREFIX + VERSION;
  const clean = caches.keys().then((names) => Promise.all(names.filter(old).map((name) => caches.delete(name))));
  event.waitUntil(clean.then(() => self.clients.claim()));
};

self.onfetch = (event) => {
  const kept = caches.open(PREFIX + VERSION).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(kept.then((response) => response ?? fetch(event.request)));
};
