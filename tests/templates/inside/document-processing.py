"""Runs in a sandbox of `document-processing`: documents made, turned into one another, and read back."""

import subprocess
from pathlib import Path

import docx
import openpyxl
import pdfplumber
import pptx
import pypdf
import pytesseract
import weasyprint
from PIL import Image, ImageDraw, ImageFont
from reportlab.pdfgen import canvas

WORDS = "Lighthouse keepers log"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def text_of(pdf):
    return " ".join(page.extract_text() for page in pypdf.PdfReader(pdf).pages)


page = canvas.Canvas("a.pdf")
page.setFont("Helvetica", 36)
page.drawString(60, 700, WORDS)
page.save()
assert WORDS in text_of("a.pdf")
assert WORDS in run("pdftotext", "a.pdf", "-")
with pdfplumber.open("a.pdf") as pdf:
    assert pdf.pages[0].extract_words()[0]["text"] == "Lighthouse"
run("qpdf", "--linearize", "a.pdf", "b.pdf")
run("qpdf", "--check", "b.pdf")
run("gs", "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=pdfwrite", "-sOutputFile=c.pdf", "b.pdf", "a.pdf")
assert len(pypdf.PdfReader("c.pdf").pages) == 2

run("pdftoppm", "-r", "150", "-png", "-singlefile", "a.pdf", "scan")
assert WORDS in pytesseract.image_to_string(Image.open("scan.png"))
picture = Image.new("RGB", (900, 120), "white")
font = ImageFont.truetype("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", 48)
ImageDraw.Draw(picture).text((20, 30), "Rendered 4711", fill="black", font=font)
picture.save("rendered.png")
assert "Rendered 4711" in run("tesseract", "rendered.png", "-")
run("convert", "rendered.png", "-rotate", "90", "turned.png")
assert Image.open("turned.png").size == (120, 900)

document = docx.Document()
document.add_heading(WORDS, 1)
document.add_paragraph("Wind from the north.")
document.save("a.docx")
assert run("pandoc", "a.docx", "-t", "markdown").startswith(f"# {WORDS}")
Path("a.md").write_text(run("pandoc", "a.docx", "-t", "markdown"))
run("pandoc", "a.md", "-o", "again.docx")
assert [paragraph.text for paragraph in docx.Document("again.docx").paragraphs] == [WORDS, "Wind from the north."]
run("pandoc", "a.md", "-o", "pandoc.pdf", "--pdf-engine=weasyprint", "--metadata", "title=log")
assert "Wind from the north" in text_of("pandoc.pdf")

book = openpyxl.Workbook()
book.active["A1"], book.active["A2"], book.active["A3"] = 20, 22, "=A1+A2"
book.save("a.xlsx")
slides = pptx.Presentation()
slides.slides.add_slide(slides.slide_layouts[0]).shapes.title.text = WORDS
slides.save("a.pptx")
for name in "docx", "pptx":
    run("soffice", "--headless", "--convert-to", "pdf", "--outdir", f"office-{name}", f"a.{name}")
    assert WORDS in text_of(f"office-{name}/a.pdf"), name
run("soffice", "--headless", "--convert-to", "csv", "--outdir", "office", "a.xlsx")
assert Path("office/a.csv").read_text().split() == ["20", "22", "42"], "LibreOffice computes the sum"

weasyprint.HTML(string=f"<h1>{WORDS}</h1>").write_pdf("html.pdf")
assert WORDS in text_of("html.pdf")
print("proven")
