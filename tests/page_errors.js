// Runs before everything else in a page: collects its errors and blocked requests.
var errors = [];
addEventListener("error", e => errors.push(String(e.message)));
addEventListener("securitypolicyviolation", e => errors.push("blocked " + e.blockedURI));
console.error = console.warn = (...words) => errors.push(words.join(" "));
