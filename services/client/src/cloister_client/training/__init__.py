"""What a site does with a message: fit and measure, behind two interfaces of Flower's."""
